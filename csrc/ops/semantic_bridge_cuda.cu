#include "core/array/dense.h"
#include "core/cuda/launch.h"
#include "ops/semantic_bridge.h"
#include "ops/semantic_bridge_kernel.cuh"

namespace fastbts {
namespace {

/// Planes z, y, x in the memory at `next`, which is advanced.
template <typename T>
std::array<T*, 3> take_planes(T*& next, const Shape<5>& volume, std::int64_t n_channels) {
  const auto [n_b, n_c, n_d, n_h, n_w] = volume;
  std::array<T*, 3> planes{};
  const std::array<std::int64_t, 3> n_pixels{n_h * n_w, n_d * n_w, n_d * n_h};
  for (std::size_t axis = 0; axis < 3; ++axis) {
    planes[axis] = next;
    next += n_b * n_channels * n_pixels[axis];
  }
  return planes;
}

BridgeSizes sizes_of(const Shape<5>& shape) {
  return {static_cast<int>(shape[0]), static_cast<int>(shape[1]), static_cast<int>(shape[2]),
          static_cast<int>(shape[3]), static_cast<int>(shape[4])};
}

template <typename T>
void launch_project(const T* tensor, const BridgeSizes& s, const std::array<T*, 3>& planes,
                    cudaStream_t stream) {
  const auto [z, y, x] = planes;
  const std::int64_t n_channels = static_cast<std::int64_t>(s.n_b) * s.n_c;
  if (n_channels == 0) return;
  project_kernel<T, true>
      <<<n_blocks(n_channels * s.n_h * s.n_w), kBlockThreads, 0, stream>>>(tensor, s, z);
  CUDA_CHECK_LAUNCH("project_kernel along D");
  project_kernel<T, false>
      <<<n_blocks(n_channels * s.n_d * s.n_w), kBlockThreads, 0, stream>>>(tensor, s, y);
  CUDA_CHECK_LAUNCH("project_kernel along H");
  project_rows_kernel<<<n_blocks(n_channels * s.n_d * s.n_h * kWarp), kBlockThreads, 0, stream>>>(
      tensor, s, x);
  CUDA_CHECK_LAUNCH("project_rows_kernel");
}

template <typename T>
void launch_plane(const SemanticBridgeArgs& args, std::size_t axis, const PlaneSizes& s,
                  const T* plane, T* out, cudaStream_t stream) {
  const dim3 blocks(static_cast<unsigned>((s.n_rows * s.n_columns + kWarp - 1) / kWarp),
                    static_cast<unsigned>(args.reduced.shape[0]));
  if (blocks.x == 0 || blocks.y == 0) return;
  const std::size_t shared_bytes = sizeof(float) * kWarp * static_cast<std::size_t>(s.n_r);
  plane_kernel<<<blocks, kBlockThreads, shared_bytes, stream>>>(
      plane, args.conv.data, args.bias.data, args.axis_bias.at(axis), args.expand.data, s, out);
  CUDA_CHECK_LAUNCH("plane_kernel");
}

template <typename T>
void launch_planes(const SemanticBridgeArgs& args, const std::array<T*, 3>& planes,
                   const std::array<T*, 3>& out, cudaStream_t stream) {
  const BridgeSizes s = sizes_of(args.reduced.shape);
  const int n_c = static_cast<int>(args.x.shape[1]);
  launch_plane(args, 0, {s.n_c, n_c, s.n_h, s.n_w}, planes[0], out[0], stream);
  launch_plane(args, 1, {s.n_c, n_c, s.n_d, s.n_w}, planes[1], out[1], stream);
  launch_plane(args, 2, {s.n_c, n_c, s.n_d, s.n_h}, planes[2], out[2], stream);
}

template <typename T>
void launch_lift(const T* volume, const std::array<T*, 3>& planes, const BridgeSizes& s, T* out,
                 cudaStream_t stream) {
  const auto [z, y, x] = planes;
  const std::int64_t n = static_cast<std::int64_t>(s.n_b) * s.n_c * s.n_d * s.n_h * s.n_w;
  if (n == 0) return;
  lift_kernel<<<n_blocks(n), kBlockThreads, 0, stream>>>(volume, z, y, x, s, out);
  CUDA_CHECK_LAUNCH("lift_kernel");
}

}  // namespace

void semantic_bridge_cuda(const SemanticBridgeArgs& args, Stream stream) {
  require_dense(args.reduced, "semantic_bridge: reduced");
  require_dense(args.conv, "semantic_bridge: conv");
  require_dense(args.axis_bias, "semantic_bridge: axis_bias");
  require_dense(args.expand, "semantic_bridge: expand");
  require_dense(args.x, "semantic_bridge: x");
  require_dense(args.out, "semantic_bridge: out");
  dispatch_floats(args.reduced.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    const Shape<5>& shape = args.reduced.shape;
    T* memory = reinterpret_cast<T*>(args.scratch.data);
    const auto projected = take_planes(memory, shape, 2 * shape[1]),
               convolved = take_planes(memory, shape, args.x.shape[1]);
    launch_project(args.reduced.as<T>().data, sizes_of(shape), projected, cuda_stream(stream));
    launch_planes(args, projected, convolved, cuda_stream(stream));
    launch_lift(args.x.as<T>().data, convolved, sizes_of(args.x.shape), args.out.as<T>().data,
                cuda_stream(stream));
  });
}

}  // namespace fastbts
