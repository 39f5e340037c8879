#include "core/array/dense.h"
#include "core/cuda/launch.h"
#include "ops/semantic_bridge.h"
#include "ops/semantic_bridge_kernel.cuh"

namespace fastbts {
namespace {

BridgeSizes sizes_of(const Shape<5>& shape) {
  return {static_cast<int>(shape[0]), static_cast<int>(shape[1]), static_cast<int>(shape[2]),
          static_cast<int>(shape[3]), static_cast<int>(shape[4])};
}

template <typename T>
void launch_project(const T* tensor, const BridgeSizes& s, T* z, T* y, T* x, cudaStream_t stream) {
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

struct PlaneWeightPointers {
  const float *conv, *bias, *view, *expand;
};

template <typename T>
void launch_plane(const T* plane, const PlaneWeightPointers& w, std::int64_t n_b,
                  const PlaneSizes& s, T* out, cudaStream_t stream) {
  const dim3 blocks(static_cast<unsigned>((s.n_rows * s.n_columns + kWarp - 1) / kWarp),
                    static_cast<unsigned>(n_b));
  if (blocks.x == 0 || blocks.y == 0) return;
  const std::size_t shared_bytes = sizeof(float) * kWarp * static_cast<std::size_t>(s.n_r);
  plane_kernel<<<blocks, kBlockThreads, shared_bytes, stream>>>(plane, w.conv, w.bias, w.view,
                                                                w.expand, s, out);
  CUDA_CHECK_LAUNCH("plane_kernel");
}

template <typename T>
void launch_lift(const T* z, const T* y, const T* x, const BridgeSizes& s, bool add, T* out,
                 cudaStream_t stream) {
  const std::int64_t n = static_cast<std::int64_t>(s.n_b) * s.n_c * s.n_d * s.n_h * s.n_w;
  if (n == 0) return;
  lift_kernel<<<n_blocks(n), kBlockThreads, 0, stream>>>(z, y, x, s, add, out);
  CUDA_CHECK_LAUNCH("lift_kernel");
}

}  // namespace

void semantic_project_cuda(const SemanticProjectArgs& args, Stream stream) {
  require_dense(args.tensor, "semantic_project: tensor");
  require_dense(args.z, "semantic_project: z");
  require_dense(args.y, "semantic_project: y");
  require_dense(args.x, "semantic_project: x");
  dispatch_floats(args.tensor.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    launch_project(args.tensor.as<T>().data, sizes_of(args.tensor.shape), args.z.as<T>().data,
                   args.y.as<T>().data, args.x.as<T>().data, cuda_stream(stream));
  });
}

void semantic_plane_cuda(const SemanticPlaneArgs& args, Stream stream) {
  require_dense(args.conv, "semantic_plane: conv");
  require_dense(args.view, "semantic_plane: view");
  require_dense(args.expand, "semantic_plane: expand");
  const auto n_r = static_cast<int>(args.conv.shape[0]),
             n_c = static_cast<int>(args.expand.shape[0]);
  for (std::size_t i = 0; i < 3; ++i) {
    const auto& plane = args.planes[i];
    require_dense(plane, "semantic_plane: planes");
    require_dense(args.out[i], "semantic_plane: out");
    const PlaneSizes sizes{n_r, n_c, static_cast<int>(plane.shape[2]),
                           static_cast<int>(plane.shape[3])};
    const PlaneWeightPointers weights{args.conv.data, args.bias.data, args.view.at(i),
                                      args.expand.data};
    dispatch_floats(plane.dtype, [&](auto tag) {
      using T = typename decltype(tag)::type;
      launch_plane(plane.as<T>().data, weights, plane.shape[0], sizes, args.out[i].as<T>().data,
                   cuda_stream(stream));
    });
  }
}

void semantic_lift_cuda(const SemanticLiftArgs& args, Stream stream) {
  require_dense(args.z, "semantic_lift: z");
  require_dense(args.y, "semantic_lift: y");
  require_dense(args.x, "semantic_lift: x");
  require_dense(args.tensor, "semantic_lift: tensor");
  dispatch_floats(args.tensor.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    launch_lift(args.z.as<T>().data, args.y.as<T>().data, args.x.as<T>().data,
                sizes_of(args.tensor.shape), args.add, args.tensor.as<T>().data,
                cuda_stream(stream));
  });
}

}  // namespace fastbts
