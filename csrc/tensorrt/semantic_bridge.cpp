#include "ops/semantic_bridge.h"

#include "tensorrt/node.h"

namespace fastbts {
namespace {

void run(const Tensors& in, void* y, Workspace& workspace, Stream stream) {
  const AnyView<5> x = in[0].volume(), reduced = in[1].volume();
  const std::int64_t n_c_out = in[0].n_channels();
  const std::int64_t n_scratch = semantic_bridge_scratch(reduced.shape, n_c_out);
  float* const scratch = workspace.take<float>(n_scratch * size_of(DType::kFloat32));
  const auto w = float_weights(in, 2, 6, workspace, stream);
  if (workspace.only_counts()) return;
  semantic_bridge_cuda({x,
                        reduced,
                        weights_view<4>(w[0], in[2]),
                        weights_view<1>(w[1], in[3]),
                        weights_view<2>(w[2], in[4]),
                        weights_view<2>(w[3], in[5]),
                        {y, x.dtype, x.shape, x.strides, x.device},
                        {scratch, {n_scratch}, {1}, x.device},
                        n_c_out},
                       stream);
}

}  // namespace

const Node kSemanticBridge{
    "SemanticBridge", 6, 2, {"BCDHW", "BRDHW", "Rr33", "R", "3R", "CR"}, run};

}  // namespace fastbts
