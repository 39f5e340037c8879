#include "core/cuda/launch.h"
#include "ops/semantic_bridge.h"
#include "ops/semantic_bridge_kernel.cuh"
#include "ops/semantic_layout.h"

namespace fastbts {
namespace {

int as_int(std::int64_t n) { return static_cast<int>(n); }

std::int64_t n_pixels_of(const Shape<5>& shape) {
  return shape[3] * shape[4] + shape[2] * shape[4] + shape[2] * shape[3];
}

template <typename AView>
BridgeVolume volume_of(const AView& view, bool channels_last) {
  const auto [n_b, n_c, n_d, n_h, n_w] = view.shape;
  const std::int64_t step = voxel_step(view, channels_last);
  return {as_int(n_c),
          as_int(n_d),
          as_int(n_h),
          as_int(n_w),
          as_int(n_pixels_of(view.shape)),
          view.strides[0],
          as_int(channel_step(view, channels_last)),
          as_int(n_h * n_w * step),
          as_int(n_w * step),
          as_int(step)};
}

/// Everything that the launches need besides pointers.
struct Launches {
  bool channels_last;
  unsigned n_b;
  int n_c_out;
  BridgeVolume reduced, x;
  cudaStream_t stream;
};

template <typename T>
void launch_project(const SemanticBridgeArgs& args, const Launches& l, float* planes) {
  const dim3 blocks(n_blocks(std::int64_t{l.reduced.n_c} * l.reduced.n_pixels), l.n_b);
  if (l.reduced.n_c == 0) return;
  project_kernel<<<blocks, kBlockThreads, 0, l.stream>>>(args.reduced.as<T>().data, l.reduced,
                                                         planes);
  CUDA_CHECK_LAUNCH("project_kernel");
}

template <typename T>
void launch_plane(const SemanticBridgeArgs& args, const Launches& l, const float* planes, T* out) {
  const BridgeVolume& x = l.x;
  const PlaneWeights weights{args.conv.data, args.bias.data, args.axis_bias.data, args.expand.data};
  const PlaneSizes s{l.reduced.n_c,
                     x.n_c,
                     l.n_c_out,
                     x.n_pixels,
                     {x.n_h, x.n_d, x.n_d},
                     {x.n_w, x.n_w, x.n_h},
                     l.channels_last ? 1 : x.n_pixels,
                     l.channels_last ? l.n_c_out : 1};
  const dim3 blocks(static_cast<unsigned>(n_tiles(s)), l.n_b);
  const std::size_t n_shared = plane_shared_bytes(s.n_r);
  plane_kernel<<<blocks, kPlaneThreads, n_shared, l.stream>>>(planes, weights, s, out);
  CUDA_CHECK_LAUNCH("plane_kernel");
}

template <typename T, typename P>
void launch_rows(const SemanticBridgeArgs& args, const Launches& l, const T* planes) {
  const std::int64_t n = std::int64_t{l.x.n_c} * l.x.n_d * l.x.n_h * l.x.n_w / P::kItems;
  const dim3 blocks(n_blocks(n), l.n_b);
  lift_rows_kernel<T, P><<<blocks, kBlockThreads, 0, l.stream>>>(
      args.x.as<T>().data, planes, l.x, args.out.as<T>().data, args.out.strides[0]);
  CUDA_CHECK_LAUNCH("lift_rows_kernel");
}

template <typename T, typename P>
void launch_voxels(const SemanticBridgeArgs& args, const Launches& l, const T* planes) {
  const std::int64_t n = std::int64_t{l.n_c_out} * l.x.n_d * l.x.n_h * l.x.n_w / P::kItems;
  const dim3 blocks(n_blocks(n), l.n_b);
  lift_voxels_kernel<T, P><<<blocks, kBlockThreads, 0, l.stream>>>(
      args.x.as<T>().data, planes, l.x, args.out.as<T>().data, args.out.strides[0],
      as_int(pitch_of(args.out)), l.n_c_out);
  CUDA_CHECK_LAUNCH("lift_voxels_kernel");
}

/// Whether n voxels of a row of all tensors may be read at once, and planes too.
bool in_groups_of_voxels(std::int64_t n, const SemanticBridgeArgs& args, const Launches& l) {
  return in_groups_of(n, args.x, args.out) && l.x.n_w % n == 0 && l.x.n_pixels % n == 0;
}

/// The same of n channels of a voxel.
bool in_groups_of_channels(std::int64_t n, const SemanticBridgeArgs& args, const Launches& l) {
  return in_groups_of(n, args.x, args.out) && l.n_c_out % n == 0 && l.x.w_step % n == 0 &&
         pitch_of(args.out) % n == 0;
}

template <typename T>
void launch_lift(const SemanticBridgeArgs& args, const Launches& l, const T* planes) {
  constexpr int kChannels = 16 / sizeof(T), kVoxels = 2;
  const bool aligned = reinterpret_cast<std::uintptr_t>(planes) % 16 == 0;
  if (l.channels_last && aligned && in_groups_of_channels(kChannels, args, l))
    return launch_voxels<T, Pack<T, kChannels>>(args, l, planes);
  if (l.channels_last) return launch_voxels<T, Pack<T, 1>>(args, l, planes);
  if (aligned && in_groups_of_voxels(kVoxels, args, l))
    return launch_rows<T, Pack<T, kVoxels>>(args, l, planes);
  launch_rows<T, Pack<T, 1>>(args, l, planes);
}

/// Scratch holds the result of step 2 in the type of x, then that of step 1 in float32.
template <typename T>
void run(const SemanticBridgeArgs& args, const Launches& l) {
  T* const convolved = reinterpret_cast<T*>(args.scratch.data);
  float* const projected = args.scratch.data + std::int64_t{l.n_b} * l.n_c_out * l.x.n_pixels;
  launch_project<T>(args, l, projected);
  launch_plane(args, l, projected, convolved);
  launch_lift(args, l, convolved);
}

Launches launches_of(const SemanticBridgeArgs& args, Stream stream) {
  const bool last =
      all_channels_last("semantic_bridge: x, reduced, out", args.n_c_out > args.x.shape[1], args.x,
                        args.reduced, args.out);
  const std::int64_t n_c_out = last ? std::max(args.x.shape[1], args.n_c_out) : args.x.shape[1];
  const std::int64_t n_pixels = n_pixels_of(args.x.shape);
  require_index(
      std::max({n_in_case(args.x, last), n_in_case(args.reduced, last), n_in_case(args.out, last),
                2 * args.reduced.shape[1] * n_pixels, n_c_out * n_pixels}),
      "semantic_bridge");
  require_shared(plane_shared_bytes(as_int(args.reduced.shape[1])), "semantic_bridge");
  return {last,
          static_cast<unsigned>(args.x.shape[0]),
          as_int(n_c_out),
          volume_of(args.reduced, last),
          volume_of(args.x, last),
          cuda_stream(stream)};
}

}  // namespace

void semantic_bridge_cuda(const SemanticBridgeArgs& args, Stream stream) {
  require_layout(args.x, "semantic_bridge: x");
  require_layout(args.reduced, "semantic_bridge: reduced");
  require_layout(args.out, "semantic_bridge: out");
  require_dense(args.conv, "semantic_bridge: conv");
  require_dense(args.axis_bias, "semantic_bridge: axis_bias");
  require_dense(args.expand, "semantic_bridge: expand");
  const Launches launches = launches_of(args, stream);
  if (launches.n_b == 0 || launches.x.n_c == 0) return;
  dispatch_floats(args.x.dtype,
                  [&](auto tag) { run<typename decltype(tag)::type>(args, launches); });
}

}  // namespace fastbts
