#include "ops/semantic_attention.h"

#include <cmath>

#include "core/array/dense.h"
#include "core/array/error.h"
#include "core/cuda/device.h"

namespace fastbts {
namespace {

void require_type(const char* name, DType got, DType expected) {
  require<InputError>(got == expected, "semantic_attention: ", name,
                      ": expected the element type of skip");
}

}  // namespace

void semantic_attention(const SemanticAttentionArgs& args, int n_threads, Stream stream) {
  const auto& below = args.encoded.shape;
  const auto& maps = args.similarity.shape;
  const std::int64_t n_hidden = args.w_a.shape[0];
  require_shape("semantic_attention: skip", args.skip.shape,
                {below[0], args.skip.shape[1], 2 * below[2], 2 * below[3], 2 * below[4]});
  require_shape("semantic_attention: decoded", args.decoded.shape, below);
  require_shape("semantic_attention: out", args.out.shape, args.skip.shape);
  require<InputError>(maps[0] == below[0] && maps[2] > 0 && maps[3] > 0 && maps[4] > 0,
                      "semantic_attention: similarity: expected ", below[0],
                      " cases as in skip and at least one voxel, got shape ", maps);
  require_shape("semantic_attention: w_x", args.w_x.shape, {n_hidden, below[1]});
  require_shape("semantic_attention: bias", args.bias.shape, {n_hidden});
  require_shape("semantic_attention: w_g", args.w_g.shape, {n_hidden, below[1]});
  require_shape("semantic_attention: w_s", args.w_s.shape, {n_hidden, maps[1]});
  require_shape("semantic_attention: w_a", args.w_a.shape, {n_hidden, 2, 2, 2});
  require<OptionsError>(std::isfinite(args.strength),
                        "semantic_attention: strength: expected a finite number, got ",
                        args.strength);
  require_type("encoded", args.encoded.dtype, args.skip.dtype);
  require_type("decoded", args.decoded.dtype, args.skip.dtype);
  require_type("similarity", args.similarity.dtype, args.skip.dtype);
  require_type("out", args.out.dtype, args.skip.dtype);
  on_device(
      args.skip.device, [&] { semantic_attention_cpu(args, n_threads); },
      [&](auto) { semantic_attention_cuda(args, stream); });
}

}  // namespace fastbts
