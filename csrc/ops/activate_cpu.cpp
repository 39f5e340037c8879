#include "core/cpu/activations.h"
#include "core/cpu/parallel.h"
#include "ops/activate.h"

namespace fastbts {

void activate_cpu(const ActivateArgs& args, int n_threads) {
  const auto x = args.x.as<float>();
  const auto out = args.out.as<float>();
  const auto [n_b, n_d, n_h, n_w, n_c] = x.shape;
  const auto row = [&, n_d = n_d, n_h = n_h, n_w = n_w, n_c = n_c](std::int64_t i) {
    const std::int64_t b = i / n_h / n_d, d = i / n_h % n_d, h = i % n_h;
    for (std::int64_t j = 0; j < n_w * n_c; ++j) {
      const std::int64_t w = j / n_c, c = j % n_c;
      const float value = *x.at(b, d, h, w, c);
      *out.at(b, d, h, w, c) =
          args.affine.data ? leaky_relu(value * *args.affine.at(b, 0, c) + *args.affine.at(b, 1, c))
                           : value;
    }
  };
  parallel_for(n_b * n_d * n_h, n_threads, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) row(i);
  });
}

}  // namespace fastbts
