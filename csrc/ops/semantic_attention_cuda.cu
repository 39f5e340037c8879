#include "core/array/dense.h"
#include "core/cuda/launch.h"
#include "ops/semantic_attention.h"
#include "ops/semantic_attention_kernel.cuh"

namespace fastbts {
namespace {

constexpr unsigned kThreads = 128;  // each holds a voxel and its eight children

template <typename T>
void launch_attention(const AttentionPointers<T>& pointers, const AttentionSizes& s,
                      std::int64_t n_b, cudaStream_t stream) {
  const std::int64_t n = static_cast<std::int64_t>(s.below[0]) * s.below[1] * s.below[2];
  if (n == 0 || n_b == 0 || s.n_c == 0) return;
  const dim3 blocks(static_cast<unsigned>((n + kThreads - 1) / kThreads),
                    static_cast<unsigned>(n_b));
  attention_kernel<<<blocks, kThreads, attention_shared_bytes(s), stream>>>(pointers, s);
  CUDA_CHECK_LAUNCH("attention_kernel");
}

AttentionSizes sizes_of(const SemanticAttentionArgs& args) {
  const auto n = [](std::int64_t size) { return static_cast<int>(size); };
  AttentionSizes sizes{n(args.skip.shape[1]),
                       n(args.encoded.shape[1]),
                       n(args.w_a.shape[0]),
                       n(args.w_s.shape[1]),
                       {},
                       {},
                       args.out.strides[0]};
  for (std::size_t axis = 0; axis < 3; ++axis) {
    sizes.below[axis] = n(args.encoded.shape[axis + 2]);
    sizes.maps[axis] = n(args.similarity.shape[axis + 2]);
  }
  return sizes;
}

template <typename T>
AttentionPointers<T> pointers_of(const SemanticAttentionArgs& args) {
  return {args.skip.as<T>().data,
          args.encoded.as<T>().data,
          args.decoded.as<T>().data,
          args.similarity.as<T>().data,
          args.w_x.data,
          args.bias.data,
          args.w_g.data,
          args.w_s.data,
          args.w_a.data,
          args.strength,
          args.out.as<T>().data,
          args.strength_on_device};
}

}  // namespace

void semantic_attention_cuda(const SemanticAttentionArgs& args, Stream stream) {
  require_dense(args.skip, "semantic_attention: skip");
  require_dense(args.encoded, "semantic_attention: encoded");
  require_dense(args.decoded, "semantic_attention: decoded");
  require_dense(args.similarity, "semantic_attention: similarity");
  require_dense(args.out, "semantic_attention: out", 1);  // cases may have gaps between them
  require_dense(args.w_x, "semantic_attention: w_x");
  require_dense(args.w_g, "semantic_attention: w_g");
  require_dense(args.w_s, "semantic_attention: w_s");
  require_dense(args.w_a, "semantic_attention: w_a");
  dispatch_floats(args.skip.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    launch_attention(pointers_of<T>(args), sizes_of(args), args.skip.shape[0], cuda_stream(stream));
  });
}

}  // namespace fastbts
