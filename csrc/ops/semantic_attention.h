#pragma once

#include "core/tensor_view.h"

namespace fastbts {

struct SemanticAttentionArgs {
  View<const float, 5> skip, gate, similarity;
  View<const float, 2> w_x, w_g, w_s;
  View<const float, 1> bias, w_a;
  float scale;
  View<float, 5> out;
};

/// Weighs a skip connection by where its own content, the decoder's and the text's similarity agree:
///   h = leaky_relu(w_x skip + w_g gate + w_s up(similarity) + bias),  m = sigmoid(w_a . h),
///   out = skip (1 + scale (2m - 1)).
///   skip        (B, C, D, H, W)   float32, rows dense  read     once from memory; the second time from cache
///   gate        (B, G, D, H, W)   float32, rows dense  read     once; decoder features on the same grid
///   similarity  (B, K, d, h, w)   float32, rows dense  read     text maps, coarser; trilinear on the fly as in
///   resample w_x         (J, C)            float32, rows dense  read     J hidden channels w_g         (J, G) float32,
///   rows dense  read w_s         (J, K)            float32, rows dense  read bias, w_a   (J)               float32,
///   dense       read scale       lambda            finite               read     0: out is skip out         (B, C, D,
///   H, W)   float32, rows dense  written  for example channels of the decoder's concatenation
///                                                               buffer; may be skip itself
/// The slope of leaky_relu is 0.01, as in the network. All in float32, each voxel on its own: two runs give the same
/// bits, whatever n_threads and whatever the machine (exp is our own).
void semantic_attention(const SemanticAttentionArgs& args, int n_threads);

void semantic_attention_cpu(const SemanticAttentionArgs& args, int n_threads);

}  // namespace fastbts
