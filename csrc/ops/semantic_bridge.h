#pragma once

#include "core/array/device.h"
#include "core/array/tensor_view.h"

namespace fastbts {

struct SemanticBridgeArgs {
  AnyView<5> x, reduced;
  View<const float, 4> conv;
  View<const float, 1> bias;
  View<const float, 2> axis_bias, expand;
  AnyView<5, void> out;
  View<float, 1> scratch;
  std::int64_t n_c_out = 0;  // CUDA, channels-last: channels of out to write if they are more than
                             // C, the last ones with zeros; scratch then holds as many
};

/// The semantic bridge: adds to a volume the 2D convolutions of its projections.
/// 1. Project. Along each axis (z over D, y over H, x over W) `reduced` becomes a plane of 2R
///    channels: R means, then R maxima.
/// 2. Convolve each plane: q = expand leaky_relu(conv plane + bias + axis_bias[axis]), slope 0.01;
///    3 x 3, zeros around; the three planes share the weights but for axis_bias.
/// 3. Lift. out(d, h, w) = x(d, h, w) + (q_z(h, w) + q_y(d, w) + q_x(d, h)) / 3.
///   x          (B, C, D, H, W)  floats, rows dense   read     at least one voxel
///   reduced    (B, R, D, H, W)  floats, rows dense   read     x with fewer channels; no NaN
///   conv       (R, 2R, 3, 3)    float32, rows dense  read
///   bias       (R)              float32, dense       read
///   axis_bias  (3, R)           float32, rows dense  read
///   expand     (C, R)           float32, rows dense  read
///   out        (B, C, D, H, W)  floats, rows dense   written  may be x itself
///   scratch    n                float32, dense       written  on a CUDA device: at least
///                                                             semantic_bridge_scratch
/// Sums are float32 in a fixed order: the same bits for any n_threads. Floats are float32, or on a
/// CUDA device also float16 or bfloat16, the same for all. There x, reduced and out must be dense,
/// or all channels-last; cases may have gaps between them.
void semantic_bridge(const SemanticBridgeArgs& args, int n_threads, Stream stream);

void semantic_bridge_cpu(const SemanticBridgeArgs& args, int n_threads);
void semantic_bridge_cuda(const SemanticBridgeArgs& args, Stream stream);

/// Elements of scratch: room for the planes of steps 1 and 2.
inline std::int64_t semantic_bridge_scratch(const Shape<5>& reduced, std::int64_t n_channels) {
  const auto [n_b, n_r, n_d, n_h, n_w] = reduced;
  return n_b * (2 * n_r + n_channels) * (n_h * n_w + n_d * n_w + n_d * n_h);
}

}  // namespace fastbts
