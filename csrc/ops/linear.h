#pragma once

#include "core/array/device.h"
#include "core/array/tensor_view.h"

namespace fastbts {

enum class Activation { kNone, kLeakyRelu, kGelu };

struct LinearArgs {
  View<const float, 2> x, weight;
  View<const float, 1> bias;  // null: none
  View<const float, 2> add;   // null: none
  Activation activation;
  View<float, 2> out;
};

/// A linear layer on a few vectors: out = activation(x weight^T + bias + add).
///   x       (N, I)  float32, rows dense  read
///   weight  (J, I)  float32, rows dense  read
///   bias    (J)     float32, dense       read     or none
///   add     (N, J)  float32, rows dense  read     or none; may be out itself
///   out     (N, J)  float32, rows dense  written
/// Sums are float32 in a fixed order.
void linear(const LinearArgs& args, int n_threads, Stream stream);

void linear_cpu(const LinearArgs& args, int n_threads);
void linear_cuda(const LinearArgs& args, Stream stream);

}  // namespace fastbts
