#include "ops/semantic_attention.h"

#include <cmath>

#include "core/error.h"

namespace fastbts {
namespace {

template <std::size_t N>
void require_shape(const char* name, const Shape<N>& got, const Shape<N>& expected) {
  require<InputError>(got == expected, "semantic_attention: ", name, ": expected shape ", expected, ", got ", got);
}

}  // namespace

void semantic_attention(const SemanticAttentionArgs& args, int n_threads) {
  const auto& skip = args.skip.shape;
  const std::int64_t n_hidden = args.w_a.shape[0], n_gate = args.gate.shape[1], n_maps = args.similarity.shape[1];
  require_shape("gate", args.gate.shape, {skip[0], n_gate, skip[2], skip[3], skip[4]});
  require_shape("out", args.out.shape, skip);
  const auto& maps = args.similarity.shape;
  require<InputError>(maps[0] == skip[0] && maps[2] > 0 && maps[3] > 0 && maps[4] > 0,
                      "semantic_attention: similarity: expected ", skip[0],
                      " cases as in skip and at least one voxel, got shape ", maps);
  require_shape("w_x", args.w_x.shape, {n_hidden, skip[1]});
  require_shape("w_g", args.w_g.shape, {n_hidden, n_gate});
  require_shape("w_s", args.w_s.shape, {n_hidden, n_maps});
  require_shape("bias", args.bias.shape, {n_hidden});
  require<OptionsError>(std::isfinite(args.scale), "semantic_attention: scale: expected a finite number, got ",
                        args.scale);
  semantic_attention_cpu(args, n_threads);
}

}  // namespace fastbts
