#include "ops/semantic_bridge.h"

#include "core/cuda/cuda_check.h"
#include "tensorrt/node.h"

namespace fastbts {
namespace {

using Planes = std::array<AnyView<4, void>, 3>;

/// The planes z, y, x of a volume, with n_channels each, in the workspace.
Planes take_planes(const AnyView<5>& volume, std::int64_t n_channels, Workspace& workspace) {
  const auto [n_b, n_c, n_d, n_h, n_w] = volume.shape;
  const std::array<Shape<4>, 3> shapes{
      {{n_b, n_channels, n_h, n_w}, {n_b, n_channels, n_d, n_w}, {n_b, n_channels, n_d, n_h}}};
  Planes planes;
  for (std::size_t i = 0; i < 3; ++i) {
    void* const data = workspace.take(n_elements(shapes[i]) * size_of(volume.dtype));
    planes[i] = {data, volume.dtype, shapes[i], dense_strides(shapes[i]), volume.device};
  }
  return planes;
}

AnyView<4> read_only(const AnyView<4, void>& view) {
  return {view.data, view.dtype, view.shape, view.strides, view.device};
}

void run(const Tensors& in, void* y, Workspace& workspace, Stream stream) {
  const AnyView<5> x = in[0].view<5>(), reduced = in[1].view<5>();
  const Planes seen = take_planes(reduced, 2 * reduced.shape[1], workspace),
               out = take_planes(x, x.shape[1], workspace);
  const auto w = float_weights(in, 2, 6, workspace, stream);
  if (workspace.only_counts()) return;
  semantic_project_cuda({reduced, seen[0], seen[1], seen[2]}, stream);
  semantic_plane_cuda({{read_only(seen[0]), read_only(seen[1]), read_only(seen[2])},
                       weights_view<4>(w[0], in[2]),
                       weights_view<1>(w[1], in[3]),
                       weights_view<2>(w[2], in[4]),
                       weights_view<2>(w[3], in[5]),
                       out},
                      stream);
  // y = x, then the planes are added: the ops know a sum in place only.
  const auto n_bytes = static_cast<std::size_t>(n_elements(x.shape) * size_of(x.dtype));
  CUDA_CHECK(cudaMemcpyAsync(y, x.data, n_bytes, cudaMemcpyDeviceToDevice, cuda_stream(stream)));
  const AnyView<5, void> sum{y, x.dtype, x.shape, x.strides, x.device};
  semantic_lift_cuda({read_only(out[0]), read_only(out[1]), read_only(out[2]), sum, true}, stream);
}

}  // namespace

const Node kSemanticBridge{"SemanticBridge", 6, {"BCDHW", "BRDHW", "Rr33", "R", "3R", "CR"}, run};

}  // namespace fastbts
