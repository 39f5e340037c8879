#pragma once

#include <array>

#include "core/array/stream.h"
#include "core/array/tensor_view.h"

namespace fastbts {

// In all of these floats are float32; on a CUDA device, where all arrays must be, and dense, also
// float16 or bfloat16, the same for all but the weights. Sums are float32.

struct SemanticProjectArgs {
  AnyView<5> tensor;
  AnyView<4, void> z, y, x;
};

/// Projects a volume along each of its axes, the 3D -> 2D half of the semantic bridge: z over D, y
/// over H, x over W.
///   tensor  (B, R, D, H, W)   floats, rows dense   read     no NaN; once, on a device again from
///   its L2 z       (B, 2R, H, W)     floats, rows dense   written  R channels of means, then R of
///   maxima y       (B, 2R, D, W)     floats, rows dense   written  likewise x       (B, 2R, D, H)
///   floats, rows dense   written  likewise
/// Sums in float32; one thread has one channel, in an order of its own: two runs give the same
/// bits, whatever n_threads.
void semantic_project(const SemanticProjectArgs& args, int n_threads, Stream stream);

struct SemanticPlaneArgs {
  std::array<AnyView<4>, 3> planes;
  View<const float, 4> conv;
  View<const float, 1> bias;
  View<const float, 2> view, expand;
  std::array<AnyView<4, void>, 3> out;
};

/// What the bridge sees in its planes: out_d = expand leaky_relu(conv plane_d + bias + view_d),
/// slope 0.01, with the same 3 x 3 convolution (zeros around) and the same expansion for the three
/// planes.
///   planes  z, y, x, each (B, 2R, *, *)  floats, rows dense   read     as semantic_project writes
///   them conv    (R, 2R, 3, 3)                float32, rows dense  read bias    (R) float32, dense
///   read view    (3, R)                       float32, rows dense  read     what tells the views
///   apart expand  (C, R)                       float32, rows dense  read out     z, y, x, each (B,
///   C, *, *)   floats, rows dense   written  no part of planes
/// Sums in float32 in a fixed order: the same bits, whatever n_threads.
void semantic_plane(const SemanticPlaneArgs& args, int n_threads, Stream stream);

struct SemanticLiftArgs {
  AnyView<4> z, y, x;
  AnyView<5, void> tensor;
  bool add;
};

/// Lifts three planes into a volume, the 2D -> 3D half: F(d, h, w) = (z(h, w) + y(d, w) + x(d, h))
/// / 3.
///   z       (B, C, H, W)     floats, rows dense   read
///   y       (B, C, D, W)     floats, rows dense   read
///   x       (B, C, D, H)     floats, rows dense   read
///   tensor  (B, C, D, H, W)  floats, rows dense   written, or added to if add
/// Two runs give the same bits, whatever n_threads.
void semantic_lift(const SemanticLiftArgs& args, int n_threads, Stream stream);

/// The three ops one after the other, with the same threads. `plane.planes` are what `project`
/// writes, `lift` reads `plane.out`.
void semantic_bridge(const SemanticProjectArgs& project, const SemanticPlaneArgs& plane,
                     const SemanticLiftArgs& lift, int n_threads, Stream stream);

void semantic_project_cpu(const SemanticProjectArgs& args, int n_threads);
void semantic_plane_cpu(const SemanticPlaneArgs& args, int n_threads);
void semantic_lift_cpu(const SemanticLiftArgs& args, int n_threads);

void semantic_project_cuda(const SemanticProjectArgs& args, Stream stream);
void semantic_plane_cuda(const SemanticPlaneArgs& args, Stream stream);
void semantic_lift_cuda(const SemanticLiftArgs& args, Stream stream);

}  // namespace fastbts
