#include "core/cpu/interpolation.h"
#include "core/cpu/parallel.h"
#include "ops/resample.h"

namespace fastbts {
namespace {

struct AllTaps {
  Taps d, h, w;
};

/// Rows that a thread works in: a whole slice between two of the input's, and a row between two of
/// that slice's.
struct Scratch {
  explicit Scratch(const Shape<4>& shape)
      : n_w(shape[3]),
        slice(static_cast<std::size_t>(shape[2] * shape[3])),
        row(static_cast<std::size_t>(shape[3])) {}
  float* slice_row(std::int64_t h) { return slice.data() + h * n_w; }

  std::int64_t n_w;
  std::vector<float> slice, row;
};

/// Writes slice d of out; tensor and out have one channel.
void resample_slice(const View<const float, 3>& tensor, const AllTaps& taps, std::int64_t d,
                    Scratch& scratch, const View<float, 3>& out) {
  const auto [n_d, n_h, n_w] = tensor.shape;
  const auto from = static_cast<std::size_t>(d);
  for (std::int64_t h = 0; h < n_h; ++h) {
    const float *low = tensor.at(taps.d.low[from], h), *high = tensor.at(taps.d.high[from], h);
    lerp_rows(low, high, taps.d.part[from], n_w, scratch.slice_row(h));
  }
  for (std::int64_t h = 0; h < out.shape[1]; ++h) {
    const auto to = static_cast<std::size_t>(h);
    const float *low = scratch.slice_row(taps.h.low[to]),
                *high = scratch.slice_row(taps.h.high[to]);
    lerp_rows(low, high, taps.h.part[to], n_w, scratch.row.data());
    lerp_along(scratch.row.data(), taps.w, out.at(d, h));
  }
}

}  // namespace

void resample_cpu(const ResampleArgs& args, int n_threads) {
  const Shape<4>&from = args.tensor.shape, to = args.out.shape;
  const AllTaps taps{{from[1], to[1]}, {from[2], to[2]}, {from[3], to[3]}};
  parallel_for(to[0] * to[1], n_threads, [&](std::int64_t begin, std::int64_t end) {
    Scratch scratch(from);
    for (std::int64_t i = begin; i < end; ++i) {
      const std::int64_t c = i / to[1], d = i % to[1];
      resample_slice(args.tensor.as<float>().slice(c), taps, d, scratch,
                     args.out.as<float>().slice(c));
    }
  });
}

}  // namespace fastbts
