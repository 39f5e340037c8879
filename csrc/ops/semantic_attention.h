#pragma once

#include "core/array/device.h"
#include "core/array/tensor_view.h"

namespace fastbts {

struct SemanticAttentionArgs {
  AnyView<5> skip, encoded, decoded, similarity;
  View<const float, 2> w_x;
  View<const float, 1> bias;
  View<const float, 2> w_g, w_s;
  View<const float, 4> w_a;
  float strength;
  AnyView<5, void> out;
  const float* strength_on_device = nullptr;  // CUDA only: read in place of strength
  std::int64_t n_c_out = 0;  // CUDA, channels-last: channels of out to write if they are more than
                             // C, the last ones with zeros
};

/// Weights a skip connection voxel by voxel, by a mask computed at the level below: an additive
/// attention gate (Oktay et al. 2018, arXiv 1804.03999) that also takes the text's similarity maps.
/// At half the skip's resolution
///   h = leaky_relu(w_x encoded + bias + w_g decoded + w_s up(similarity)), slope 0.01,
/// and for each of the 2 x 2 x 2 voxels (children) of the skip inside one of those
///   m = sigmoid(sum_j w_a[j, child] h_j),  out = skip (1 + strength (2m - 1)).
///   skip        (B, C, 2D, 2H, 2W)  floats, rows dense   read
///   encoded     (B, C', D, H, W)    floats, rows dense   read     the encoder's next level
///   decoded     (B, C', D, H, W)    floats, rows dense   read     decoder, before its upsampling
///   similarity  (B, K, d, h, w)     floats, rows dense   read     upsampled as `resample` does
///   w_x, w_g    (J, C')             float32, rows dense  read     J hidden channels
///   bias        (J)                 float32, dense       read
///   w_s         (J, K)              float32, rows dense  read
///   w_a         (J, 2, 2, 2)        float32, rows dense  read
///   strength                        finite               read     lambda; 0: out is skip
///   out         (B, C, 2D, 2H, 2W)  floats, rows dense   written  may be skip itself, or channels
///                                                                 of a larger buffer
/// Sums are float32 in a fixed order: the same bits for any n_threads. Floats are float32, or on a
/// CUDA device also float16 or bfloat16, the same for all. There skip, encoded, decoded and out
/// must be dense, or all channels-last; similarity may be either, and cases may have gaps between
/// them.
void semantic_attention(const SemanticAttentionArgs& args, int n_threads, Stream stream);

void semantic_attention_cpu(const SemanticAttentionArgs& args, int n_threads);
void semantic_attention_cuda(const SemanticAttentionArgs& args, Stream stream);

}  // namespace fastbts
