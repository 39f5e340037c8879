#include "ops/semantic_attention.h"

#include "tensorrt/node.h"

namespace fastbts {
namespace {

void run(const Tensors& in, void* y, Workspace& workspace, Stream stream) {
  const auto w = float_weights(in, 4, 10, workspace, stream);
  if (workspace.only_counts()) return;
  const AnyView<5> skip = in[0].volume();
  const AnyView<5, void> out{y, skip.dtype, skip.shape, skip.strides, skip.device};
  semantic_attention_cuda(
      {skip, in[1].volume(), in[2].volume(), in[3].view<5>(), weights_view<2>(w[0], in[4]),
       weights_view<1>(w[1], in[5]), weights_view<2>(w[2], in[6]), weights_view<2>(w[3], in[7]),
       weights_view<4>(w[4], in[8]), 0.0F, out, w[5], in[0].n_channels()},
      stream);
}

}  // namespace

const Node kSemanticAttention{
    "SemanticAttention",
    10,
    3,
    {"BSdhw", "BCDHW", "BCDHW", "BKXYZ", "JC", "J", "JC", "JK", "J222", ""},
    run};

}  // namespace fastbts
