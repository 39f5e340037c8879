#pragma once

#include "core/array/stream.h"
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
  const float* strength_on_device =
      nullptr;  // a network has it there: read in place of strength; CUDA only
};

/// Weighs a skip connection by where the level below, the decoder and the text's similarity agree,
/// as training/model/attention.py does. At half resolution
///   h = leaky_relu(w_x encoded + bias + w_g decoded + w_s up(similarity)), slope 0.01,
/// and for each of the 2 x 2 x 2 voxels of the skip that lie in one of those
///   m = sigmoid(sum_j w_a[j, child] h_j),  out = skip (1 + strength (2m - 1)).
///   skip        (B, C, 2D, 2H, 2W)  floats, rows dense   read     once
///   encoded     (B, C', D, H, W)    floats, rows dense   read     the encoder's next level
///   decoded     (B, C', D, H, W)    floats, rows dense   read     the decoder before its
///   upsampling similarity  (B, K, d, h, w)     floats, rows dense   read     text maps; trilinear
///   on the fly as in resample w_x, w_g    (J, C')             float32, rows dense  read     J
///   hidden channels bias        (J)                 float32, dense       read w_s         (J, K)
///   float32, rows dense  read w_a         (J, 2, 2, 2)        float32, rows dense  read strength
///   finite               read     lambda; 0: out is skip out         (B, C, 2D, 2H, 2W)  floats,
///   rows dense   written  once; may be channels of the decoder's concatenation
///                                                                 buffer, or skip itself
/// All in float32, each voxel on its own: the same bits whatever n_threads and whatever the machine
/// (exp is our own). Floats are float32; on a CUDA device, where all arrays must be, and dense but
/// for the cases of out, also float16 or bfloat16, the same for all but the weights.
void semantic_attention(const SemanticAttentionArgs& args, int n_threads, Stream stream);

void semantic_attention_cpu(const SemanticAttentionArgs& args, int n_threads);
void semantic_attention_cuda(const SemanticAttentionArgs& args, Stream stream);

}  // namespace fastbts
