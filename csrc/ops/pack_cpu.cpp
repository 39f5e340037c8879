#include "core/cpu/activations.h"
#include "core/cpu/parallel.h"
#include "ops/pack.h"

namespace fastbts {
namespace {

bool is_present(const View<const float, 3>& image, std::int64_t p) {
  for (std::int64_t d = 0; d < image.shape[0]; d += p)
    for (std::int64_t h = 0; h < image.shape[1]; h += p)
      for (std::int64_t w = 0; w < image.shape[2]; w += p)
        if (*image.at(d, h, w) != 0) return true;
  return false;
}

void find_gains(const PackArgs& args) {
  const auto volume = args.volume.as<float>();
  const std::int64_t n_m = volume.shape[1];
  for (std::int64_t b = 0; b < volume.shape[0]; ++b) {
    for (std::int64_t m = 0; m < n_m; ++m)
      *args.scratch.at(0, b, m) = is_present(volume.slice(b).slice(m), args.patch) ? 1.0F : 0.0F;
    for (std::int64_t m = 0; m < n_m; ++m) {
      float sum = *args.gate_bias.at(m);
      for (std::int64_t n = 0; n < n_m; ++n) sum += *args.gate.at(m, n) * *args.scratch.at(0, b, n);
      *args.scratch.at(1, b, m) = 2 * sigmoid(sum);
    }
  }
}

}  // namespace

void pack_cpu(const PackArgs& args, int n_threads) {
  if (args.gate.data) find_gains(args);
  const auto volume = args.volume.as<float>();
  const auto out = args.out.as<float>();
  const auto [n_b, n_d, n_h, n_w, n_c] = out.shape;
  const std::int64_t p = args.patch, n_children = p * p * p;
  const auto row = [&, n_d = n_d, n_h = n_h, n_w = n_w, n_c = n_c](std::int64_t i) {
    const std::int64_t b = i / n_h / n_d, d = i / n_h % n_d, h = i % n_h;
    for (std::int64_t j = 0; j < n_w * n_c; ++j) {
      const std::int64_t w = j / n_c, c = j % n_c, m = c / n_children, child = c % n_children;
      const float value =
          *volume.at(b, m, p * d + child / (p * p), p * h + child / p % p, p * w + child % p);
      float& target = *out.at(b, d, h, w, c);
      if (!args.gate.data)
        target = value;
      else
        target = value == 0 ? *args.background.at(m) : value * *args.scratch.at(1, b, m);
    }
  };
  parallel_for(n_b * n_d * n_h, n_threads, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) row(i);
  });
}

}  // namespace fastbts
