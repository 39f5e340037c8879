#include <cmath>

#include "core/cpu/activations.h"
#include "ops/linear.h"

namespace fastbts {
namespace {

float activated(float x, Activation activation) {
  switch (activation) {
    case Activation::kLeakyRelu:
      return leaky_relu(x);
    case Activation::kGelu:
      return 0.5F * x * (1 + std::erf(x * 0.70710678F));
    default:
      return x;
  }
}

}  // namespace

void linear_cpu(const LinearArgs& args, int) {
  for (std::int64_t n = 0; n < args.out.shape[0]; ++n) {
    for (std::int64_t j = 0; j < args.out.shape[1]; ++j) {
      float sum = args.bias.data ? *args.bias.at(j) : 0.0F;
      if (args.add.data) sum += *args.add.at(n, j);
      for (std::int64_t i = 0; i < args.x.shape[1]; ++i)
        sum += *args.x.at(n, i) * *args.weight.at(j, i);
      *args.out.at(n, j) = activated(sum, args.activation);
    }
  }
}

}  // namespace fastbts
