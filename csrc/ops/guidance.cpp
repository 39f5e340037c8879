#include "ops/guidance.h"

#include "core/array/dense.h"
#include "core/array/error.h"
#include "core/cuda/device.h"

namespace fastbts {
namespace {

template <typename AView>
void require_half(const AView& view, const char* name) {
  require<InputError>(view.dtype == DType::kFloat16, name, ": expected float16 on a CUDA device");
}

void require_prompts(std::int64_t n, const char* name) {
  require<OptionsError>(n >= 1 && n <= kMostPrompts, name, ": expected 1 to ", kMostPrompts,
                        " prompts, got ", n);
}

}  // namespace

void similarity(const SimilarityArgs& args, int n_threads, Stream stream) {
  const auto [n_b, n_d, n_h, n_w, n_e] = args.image.shape;
  const std::int64_t n_k = args.text.shape[0];
  require_prompts(n_k, "similarity: text");
  require_shape("similarity: text", args.text.shape, {n_k, n_e});
  require_shape("similarity: bias", args.bias.shape, {n_k});
  require_shape("similarity: out", args.out.shape, {n_b, n_k, n_d, n_h, n_w});
  on_device(
      args.image.device, [&] { similarity_cpu(args, n_threads); },
      [&](auto) {
        require_half(args.image, "similarity: image");
        require_half(args.out, "similarity: out");
        similarity_cuda(args, stream);
      });
}

void text_reads(const TextReadsArgs& args, int n_threads, Stream stream) {
  const auto [n_b, n_d, n_h, n_w, n_e] = args.key.shape;
  const std::int64_t n_k = args.query.shape[1], n = n_d * n_h * n_w;
  require<InputError>(n > 0, "text_reads: key: expected at least one voxel, got shape ",
                      args.key.shape);
  require_shape("text_reads: value", args.value.shape, args.key.shape);
  require_shape("text_reads: query", args.query.shape, {n_b, n_k, n_e});
  require_shape("text_reads: out", args.out.shape, args.query.shape);
  require_shape("text_reads: scratch", args.scratch.shape, {n_b, n_k, n});
  require_dense(args.scratch, "text_reads: scratch");
  on_device(
      args.query.device, [&] { text_reads_cpu(args, n_threads); },
      [&](auto) {
        require_half(args.key, "text_reads: key");
        require_half(args.value, "text_reads: value");
        text_reads_cuda(args, stream);
      });
}

void image_reads(const ImageReadsArgs& args, int n_threads, Stream stream) {
  const std::int64_t n_k = args.key.shape[1];
  require_prompts(n_k, "image_reads: key");
  require_shape("image_reads: key", args.key.shape,
                {args.query.shape[0], n_k, args.query.shape[4]});
  require_shape("image_reads: value", args.value.shape, args.key.shape);
  require_shape("image_reads: out", args.out.shape, args.query.shape);
  on_device(
      args.query.device, [&] { image_reads_cpu(args, n_threads); },
      [&](auto) {
        require_half(args.query, "image_reads: query");
        require_half(args.out, "image_reads: out");
        image_reads_cuda(args, stream);
      });
}

}  // namespace fastbts
