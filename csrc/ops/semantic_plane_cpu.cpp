#include <algorithm>
#include <vector>

#include "core/panel.h"
#include "core/parallel.h"
#include "ops/semantic_bridge.h"

namespace fastbts {
namespace {

constexpr float kSlope = 0.01F;      // of leaky_relu, as everywhere in the network
constexpr std::int64_t kKernel = 3;  // the convolution is kKernel x kKernel

/// The convolution as a matrix (R, 2R 3 3), the expansion (C, R), and the bias of each view.
struct Weights {
  explicit Weights(const SemanticPlaneArgs& args)
      : conv(args.conv.shape[0], args.conv.shape[1] * kKernel * kKernel),
        expand(args.expand.shape[0], args.expand.shape[1]),
        bias(3, std::vector<float>(static_cast<std::size_t>(conv.n_rows()))),
        no_bias(static_cast<std::size_t>(expand.n_rows())) {
    for (std::int64_t r = 0; r < args.conv.shape[0]; ++r) {
      for (std::int64_t i = 0; i < conv.n_columns(); ++i)
        conv.at(r, i) = args.conv.at(r, i / (kKernel * kKernel), i / kKernel % kKernel)[i % kKernel];
      for (std::size_t view = 0; view < 3; ++view)
        bias[view][static_cast<std::size_t>(r)] = *args.bias.at(r) + args.view.at(view)[r];
      for (std::int64_t c = 0; c < args.expand.shape[0]; ++c) expand.at(c, r) = args.expand.at(c)[r];
    }
  }

  PanelMatrix conv, expand;
  std::vector<std::vector<float>> bias;
  std::vector<float> no_bias;
};

struct Scratch {
  explicit Scratch(const Weights& weights)
      : panel(static_cast<std::size_t>(weights.conv.n_columns() * kLanes)),
        hidden(static_cast<std::size_t>(weights.conv.n_rows() * kLanes)),
        out(static_cast<std::size_t>(weights.expand.n_rows() * kLanes)) {}

  std::vector<float> panel, hidden, out;
};

/// Collects what the convolution sees of one channel around kLanes pixels of row h, zeros outside; returns the end.
float* collect(const View<const float, 2>& image, std::int64_t h, std::int64_t begin, float* panel) {
  const std::int64_t first = std::max<std::int64_t>(begin - 1, 0);
  const std::int64_t n = std::min(begin + kLanes + 1, image.shape[1]) - first;
  for (std::int64_t row = h - 1; row <= h + 1; ++row) {
    float window[kLanes + kKernel - 1] = {};
    if (Bounds{0, image.shape[0]}.contains(row)) std::copy_n(image.at(row) + first, n, window + (first - begin + 1));
    for (std::int64_t k = 0; k < kKernel; ++k) panel = std::copy_n(window + k, kLanes, panel);
  }
  return panel;
}

/// Computes row h of one case of one view.
void see_row(const View<const float, 3>& image, const Weights& weights, const std::vector<float>& bias, std::int64_t h,
             Scratch& scratch, const View<float, 3>& out) {
  for (std::int64_t begin = 0; begin < image.shape[2]; begin += kLanes) {
    float* panel = scratch.panel.data();
    for (std::int64_t c = 0; c < image.shape[0]; ++c) panel = collect(image.slice(c), h, begin, panel);
    weights.conv.multiply(scratch.panel.data(), bias.data(), scratch.hidden.data());
    for (float& value : scratch.hidden) value = value > 0 ? value : kSlope * value;
    weights.expand.multiply(scratch.hidden.data(), weights.no_bias.data(), scratch.out.data());
    const std::int64_t n = std::min(kLanes, image.shape[2] - begin);
    for (std::int64_t c = 0; c < out.shape[0]; ++c)
      std::copy_n(scratch.out.data() + c * kLanes, n, out.at(c, h) + begin);
  }
}

}  // namespace

void semantic_plane_cpu(const SemanticPlaneArgs& args, int n_threads) {
  const Weights weights(args);
  const auto n_rows = [&](std::size_t view) { return args.planes[view].shape[0] * args.planes[view].shape[2]; };
  parallel_for(n_rows(0) + n_rows(1) + n_rows(2), n_threads, [&](std::int64_t begin, std::int64_t end) {
    Scratch scratch(weights);
    for (std::int64_t i = begin; i < end; ++i) {
      std::size_t view = 0;
      std::int64_t row = i;
      while (row >= n_rows(view)) row -= n_rows(view++);
      const std::int64_t n_h = args.planes[view].shape[2];
      see_row(args.planes[view].as<float>().slice(row / n_h), weights, weights.bias[view], row % n_h, scratch,
              args.out[view].as<float>().slice(row / n_h));
    }
  });
}

}  // namespace fastbts
