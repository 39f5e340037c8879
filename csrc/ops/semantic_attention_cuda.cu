#include "core/cuda/launch.h"
#include "ops/semantic_attention.h"
#include "ops/semantic_attention_kernel.cuh"
#include "ops/semantic_layout.h"

namespace fastbts {
namespace {

int as_int(std::int64_t n) { return static_cast<int>(n); }

template <typename T, typename AView>
Feature<T> feature(const AView& view, bool channels_last) {
  using Element = std::remove_const_t<T>;
  return {view.template as<Element>().data, view.strides[0], channel_step(view, channels_last),
          as_int(voxel_step(view, channels_last))};
}

AttentionSizes sizes_of(const SemanticAttentionArgs& args) {
  AttentionSizes sizes{as_int(args.skip.shape[1]),
                       as_int(std::max(args.skip.shape[1], args.n_c_out)),
                       as_int(args.encoded.shape[1]),
                       as_int(args.w_a.shape[0]),
                       as_int(args.w_s.shape[1]),
                       {},
                       {}};
  for (std::size_t axis = 0; axis < 3; ++axis) {
    sizes.below[axis] = as_int(args.encoded.shape[axis + 2]);
    sizes.maps[axis] = as_int(args.similarity.shape[axis + 2]);
  }
  return sizes;
}

template <typename T>
AttentionPointers<T> pointers_of(const SemanticAttentionArgs& args, bool channels_last) {
  return {feature<const T>(args.skip, channels_last),
          feature<const T>(args.encoded, channels_last),
          feature<const T>(args.decoded, channels_last),
          feature<const T>(args.similarity, !is_dense(args.similarity)),
          args.w_x.data,
          args.bias.data,
          args.w_g.data,
          args.w_s.data,
          args.w_a.data,
          args.strength,
          feature<T>(args.out, channels_last),
          args.strength_on_device};
}

/// P: what a thread reads of the skip at once, and of channels-last features.
template <typename T, typename P, bool kChannelsLast>
void launch(const SemanticAttentionArgs& args, cudaStream_t stream) {
  const AttentionSizes s = sizes_of(args);
  const std::int64_t n = std::int64_t{s.below[0]} * s.below[1] * s.below[2];
  const dim3 blocks(static_cast<unsigned>((n + kBlockVoxels - 1) / kBlockVoxels),
                    static_cast<unsigned>(args.skip.shape[0]));
  attention_kernel<T, P, kChannelsLast>
      <<<blocks, kAttentionThreads, attention_shared_bytes(s), stream>>>(
          pointers_of<T>(args, kChannelsLast), s);
  CUDA_CHECK_LAUNCH("attention_kernel");
}

/// Whether n channels of a voxel may be read at once.
bool in_groups_of_channels(std::int64_t n, const SemanticAttentionArgs& args) {
  const auto pitches_fit = [n](const auto&... views) {
    return ((pitch_of(views) % n == 0) && ...);
  };
  return in_groups_of(n, args.skip, args.encoded, args.decoded, args.out) &&
         pitches_fit(args.skip, args.encoded, args.decoded, args.out) &&
         std::max(args.skip.shape[1], args.n_c_out) % n == 0;
}

/// Whether n voxels of a row of the skip may.
bool in_groups_of_voxels(std::int64_t n, const SemanticAttentionArgs& args) {
  return in_groups_of(n, args.skip, args.out) && args.skip.shape[4] % n == 0;
}

template <typename T>
void run(const SemanticAttentionArgs& args, bool channels_last, cudaStream_t stream) {
  constexpr int kMost = 16 / sizeof(T);
  if (channels_last && in_groups_of_channels(kMost, args))
    return launch<T, Pack<T, kMost>, true>(args, stream);
  if (channels_last) return launch<T, Pack<T, 1>, true>(args, stream);
  if (in_groups_of_voxels(kMost, args)) return launch<T, Pack<T, kMost>, false>(args, stream);
  if (in_groups_of_voxels(4, args)) return launch<T, Pack<T, 4>, false>(args, stream);
  launch<T, Pack<T, 2, sizeof(T)>, false>(args, stream);
}

/// Whether the tensors of the network are channels-last; maps may have either layout.
bool check_layouts(const SemanticAttentionArgs& args) {
  require_layout(args.skip, "semantic_attention: skip");
  require_layout(args.encoded, "semantic_attention: encoded");
  require_layout(args.decoded, "semantic_attention: decoded");
  require_layout(args.similarity, "semantic_attention: similarity");
  require_layout(args.out, "semantic_attention: out");
  const bool last = all_channels_last("semantic_attention: skip, encoded, decoded, out",
                                      args.n_c_out > args.skip.shape[1], args.skip, args.encoded,
                                      args.decoded, args.out);
  const bool maps_last = !is_dense(args.similarity);
  // Of a dense tensor a kernel counts the voxels of a channel in 32 bits, and channels in 64.
  const auto n = [&](const auto& view, bool channels_last) {
    return channel_step(view, false) * voxel_step(view, channels_last);
  };
  for (std::size_t axis = 2; axis < 5; ++axis)  // see short_tap_of
    require_index(2 * args.encoded.shape[axis] * args.similarity.shape[axis], "semantic_attention");
  require_index(std::max({n(args.skip, last), n(args.encoded, last), n(args.decoded, last),
                          n(args.out, last), n(args.similarity, maps_last)}),
                "semantic_attention");
  return last;
}

}  // namespace

void semantic_attention_cuda(const SemanticAttentionArgs& args, Stream stream) {
  require_dense(args.w_x, "semantic_attention: w_x");
  require_dense(args.w_g, "semantic_attention: w_g");
  require_dense(args.w_s, "semantic_attention: w_s");
  require_dense(args.w_a, "semantic_attention: w_a");
  const bool channels_last = check_layouts(args);
  if (n_elements(args.skip.shape) == 0) return;
  require_shared(attention_shared_bytes(sizes_of(args)), "semantic_attention");
  dispatch_floats(args.skip.dtype, [&](auto tag) {
    run<typename decltype(tag)::type>(args, channels_last, cuda_stream(stream));
  });
}

}  // namespace fastbts
