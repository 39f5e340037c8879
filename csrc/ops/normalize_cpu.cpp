#include <cstring>
#include <memory>
#include <mutex>
#include <numeric>

#include "core/array/dense.h"
#include "core/array/packed.h"
#include "core/cpu/fusion.h"
#include "core/cpu/memory.h"
#include "core/cpu/parallel.h"
#include "core/cpu/tile.h"
#include "core/cpu/wide.h"
#include "ops/normalize.h"
#include "ops/normalize_stats.h"

namespace fastbts {
namespace {

constexpr std::int64_t padded(std::int64_t n) { return (n + 7) / 8 * 8; }

/// Which voxels of the box are brain; axes as in the volume's memory.
struct Brain {
  View<std::uint8_t, 3> mask;  // 1 where brain; rows are padded with zeros to a multiple of 8 bytes
  std::unique_ptr<std::uint8_t[]>
      storage;  // of mask; not initialised, so that its threads touch it first
  std::vector<std::int64_t> slice_begin;  // brain voxels before each slice, and of all
  std::vector<unsigned> bits;  // of each modality of integers: those that any of its values has
};

/// Marks where a row of a modality is not 0; returns the bits that any of its integers has.
template <typename T>
unsigned mark_nonzero(const T* values, std::int64_t stride, std::int64_t n,
                      std::uint8_t* __restrict row) {
  Bits<T> bits = 0;
  with_step(stride, [&](auto step) {
    for (std::int64_t c = 0; c < n; ++c) {
      row[c] |= static_cast<std::uint8_t>(values[c * step] != T{0});
      if constexpr (kCountable<T>) bits |= static_cast<Bits<T>>(values[c * step]);
    }
  });
  return static_cast<unsigned>(bits);
}

/// Marks the brain of one row; returns how many voxels that is.
template <typename T>
std::int32_t mark_brain(const View<const T, 4>& box, std::int64_t a, std::int64_t b,
                        std::uint8_t* row, std::vector<unsigned>& bits) {
  const std::int64_t n = box.shape[3];
  std::fill(row, row + padded(n), std::uint8_t{0});
  for (std::int64_t m = 0; m < box.shape[0]; ++m)
    bits[static_cast<std::size_t>(m)] |= mark_nonzero(box.at(m, a, b), box.strides[3], n, row);
  return std::accumulate(row, row + n, std::int32_t{0});
}

template <typename T>
Brain find_brain(const View<const T, 4>& box, int n_threads) {
  const std::int64_t n_a = box.shape[1], n_b = box.shape[2], n_c = box.shape[3];
  Brain brain;
  brain.storage.reset(new std::uint8_t[static_cast<std::size_t>(n_a * n_b * padded(n_c))]);
  brain.mask = {brain.storage.get(), {n_a, n_b, n_c}, {n_b * padded(n_c), padded(n_c), 1}};
  brain.slice_begin.assign(n_a + 1, 0);
  brain.bits.assign(static_cast<std::size_t>(box.shape[0]), 0);
  std::mutex mutex;
  parallel_for(n_a, n_threads, [&](std::int64_t begin, std::int64_t end) {
    std::vector<unsigned> bits(brain.bits.size());
    for (std::int64_t a = begin; a < end; ++a) {
      for (std::int64_t b = 0; b < n_b; ++b)
        wide([&] { brain.slice_begin[a + 1] += mark_brain(box, a, b, brain.mask.at(a, b), bits); });
    }
    const std::lock_guard<std::mutex> lock(mutex);
    for (std::size_t m = 0; m < bits.size(); ++m) brain.bits[m] |= bits[m];
  });
  std::partial_sum(brain.slice_begin.begin(), brain.slice_begin.end(), brain.slice_begin.begin());
  return brain;
}

/// Calls fn(value) for the brain values of a row, in groups of eight as brain comes in runs.
template <typename T, typename Fn>
void for_brain(const T* values, std::int64_t stride, const std::uint8_t* mask, std::int64_t n,
               Fn&& fn) {
  constexpr std::uint64_t kNone = 0, kAll = 0x0101010101010101;
  with_step(stride, [&](auto step) {
    for (std::int64_t begin = 0; begin < n; begin += 8) {
      std::uint64_t group;
      std::memcpy(&group, mask + begin, 8);
      if (group == kAll) {
        for (std::int64_t i = 0; i < 8; ++i) fn(values[(begin + i) * step]);
      } else if (group != kNone) {
        for (std::int64_t c = begin; c < std::min(begin + 8, n); ++c) {
          if (mask[c]) fn(values[c * step]);
        }
      }
    }
  });
}

/// Calls fn(value) for the brain values of slice a of one modality, in memory order.
template <typename T, typename Fn>
void for_brain(const View<const T, 3>& box, const Brain& brain, std::int64_t a, Fn&& fn) {
  for (std::int64_t b = 0; b < box.shape[1]; ++b)
    for_brain(box.at(a, b), box.strides[2], brain.mask.at(a, b), box.shape[2], fn);
}

/// Copies the brain values of one modality, in memory order.
template <typename T>
std::vector<T> gather_brain(const View<const T, 3>& box, const Brain& brain, int n_threads) {
  std::vector<T> values(brain.slice_begin.back());
  parallel_for(box.shape[0], n_threads, [&](std::int64_t begin, std::int64_t end) {
    T* next = values.data() + brain.slice_begin[begin];
    for (std::int64_t a = begin; a < end; ++a)
      for_brain(box, brain, a, [&](T value) { *next++ = value; });
  });
  return values;
}

/// Counts the brain values of one modality, which have only these bits.
template <typename T>
Histogram<T> count_brain(const View<const T, 3>& box, const Brain& brain, unsigned bits,
                         int n_threads) {
  Histogram<T> histogram = histogram_of_bits<T>(bits);
  count(box.shape[0], n_threads, histogram, [&](std::int64_t begin, std::int64_t end, auto&& add) {
    for (std::int64_t a = begin; a < end; ++a) for_brain(box, brain, a, add);
  });
  return histogram;
}

template <typename T>
Stats stats_of_brain(const View<const T, 4>& box, const Brain& brain, std::int64_t m,
                     const std::array<double, 2>& percentiles, int n_threads) {
  if constexpr (kCountable<T>) {
    const unsigned bits = brain.bits[static_cast<std::size_t>(m)];
    return stats_of(count_brain(box.slice(m), brain, bits, n_threads), brain.slice_begin.back(),
                    percentiles);
  } else {
    return stats_of(gather_brain(box.slice(m), brain, n_threads), percentiles, n_threads);
  }
}

/// z-scores. From lo on, differences of small integers are exact in float32.
template <typename T>
struct ZScore {
  using Real = std::conditional_t<kCountable<T>, float, double>;

  explicit ZScore(const Stats& stats)
      : lo(static_cast<Real>(stats.lo)),
        hi(static_cast<Real>(stats.hi)),
        factor(static_cast<Real>(stats.std > 0 ? 1 / stats.std : 0)),
        z_of_lo(static_cast<Real>(stats.std > 0 ? (stats.lo - stats.mean) / stats.std : 0)) {}

  float operator()(T value) const {
    const Real clipped = clip(static_cast<Real>(value), lo, hi);
    return static_cast<float>((clipped - lo) * factor + z_of_lo);
  }

  Real lo, hi, factor, z_of_lo;
};

/// Every p-th voxel from `first` on, along all three axes.
template <typename T>
View<T, 3> every(View<T, 3> view, const Shape<3>& first, std::int64_t p) {
  for (std::size_t i = 0; i < 3; ++i) {
    view.data += first[i] * view.strides[i];
    view.shape[i] = std::max<std::int64_t>(0, (view.shape[i] - first[i] + p - 1) / p);
    view.strides[i] *= p;
  }
  return view;
}

/// The voxels of one modality that become one channel of the tensor, and where they are in it.
struct Child {
  /// `index` counts the voxels of a block, w fastest; `inner` is the box in the tensor's voxels.
  Child(std::int64_t index, const Box& inner, std::int64_t p) {
    const Shape<3> at{index / p / p, index / p % p, index % p};
    for (std::size_t i = 0; i < 3; ++i) {
      first[i] = ((at[i] - inner[i].begin) % p + p) % p;
      const std::int64_t n = inner[i].size() - first[i];
      box[i].begin = (inner[i].begin + first[i]) / p;
      box[i].end = box[i].begin + std::max<std::int64_t>(0, (n + p - 1) / p);
    }
  }

  Shape<3> first;  // of its voxels in the brain box
  Box box;         // of its channel
};

/// Where each modality comes from and what becomes of it; axes of the tensor.
template <typename T>
struct Source {
  View<const T, 4> box;
  View<const std::uint8_t, 3> mask;
  std::vector<ZScore<T>> scores;
  std::vector<Fusion> fusions;
};

/// The z-scores of a row, 0 where there is no brain.
template <typename T, typename Step, typename MaskStep>
void score_row(const T* values, Step step, const std::uint8_t* mask, MaskStep mask_step,
               ZScore<T> score, std::int64_t n, float* __restrict z) {
  for (std::int64_t c = 0; c < n; ++c) {
    const float value = score(values[c * step]);
    z[c] = mask[c * mask_step] ? value : 0.0F;
  }
}

/// The same with steps that are known when it is compiled, where rows are dense but for a patch.
template <typename T>
void score_row(const T* values, std::int64_t step, const std::uint8_t* mask, std::int64_t mask_step,
               const ZScore<T>& score, std::int64_t n, float* z) {
  constexpr std::integral_constant<std::int64_t, 1> kOne{};
  constexpr std::integral_constant<std::int64_t, 2> kTwo{};
  if (step == 1 && mask_step == 1) return score_row(values, kOne, mask, kOne, score, n, z);
  if (step == 2 && mask_step == 2) return score_row(values, kTwo, mask, kTwo, score, n, z);
  score_row<T, std::int64_t, std::int64_t>(values, step, mask, mask_step, score, n, z);
}

/// What becomes of z-scores; from the last to the first if `mirrored`.
template <typename Out>
void fuse_row(const float* __restrict z, std::int64_t n, Fusion fusion, bool mirrored,
              Out* __restrict out) {
  if (mirrored) {
    for (std::int64_t c = 0; c < n; ++c) out[n - 1 - c] = fused<Out>(z[c], fusion);
  } else {
    for (std::int64_t c = 0; c < n; ++c) out[c] = fused<Out>(z[c], fusion);
  }
}

/// Writes slice d, along the first axis of the order, of the part of a channel that is in the box.
template <typename Out, typename T>
void write_slice(const Source<T>& source, std::int64_t m, const Child& child, std::int64_t p,
                 const std::array<std::size_t, 3>& order, const View<Out, 3>& channel,
                 std::int64_t d, bool nontemporal) {
  const Bounds& slices = child.box[order[0]];
  if (!slices.contains(d)) return;
  View<const T, 3> box = every(source.box.slice(m), child.first, p).permuted(order);
  View<const std::uint8_t, 3> mask = every(source.mask, child.first, p).permuted(order);
  const View<Out, 3> target = channel.cropped(child.box).permuted(order);
  const bool mirrored = box.strides[2] < 0;
  if (mirrored) {  // memory is read forwards, as prefetchers like it
    box = box.mirrored(2);
    mask = mask.mirrored(2);
  }
  const ZScore<T>& score = source.scores[static_cast<std::size_t>(m)];
  const Fusion& fusion = source.fusions[static_cast<std::size_t>(m)];
  const std::int64_t n = box.shape[2];
  std::vector<float> z(static_cast<std::size_t>(n));
  transfer_rows(target, d - slices.begin, nontemporal,
                [&](std::int64_t a, std::int64_t b, Out* row) {
                  wide([&] {
                    score_row(box.at(a, b), box.strides[2], mask.at(a, b), mask.strides[2], score,
                              n, z.data());
                    fuse_row(z.data(), n, fusion, mirrored, row);
                  });
                });
}

/// Fills slice d of a channel outside its box.
template <typename Out>
void fill_outside(const View<Out, 3>& channel, const Box& box, Out value, std::int64_t d) {
  const std::int64_t n_w = channel.shape[2];
  for (std::int64_t h = 0; h < channel.shape[1]; ++h) {
    Out* row = channel.at(d, h);
    const bool crosses = box[0].contains(d) && box[1].contains(h);
    std::fill(row, row + (crosses ? box[2].begin : n_w), value);
    if (crosses) std::fill(row + box[2].end, row + n_w, value);
  }
}

/// Writes the tensor: its channels inside the box, slice by slice of the source, then around it.
template <typename Out, typename T>
void write(const Source<T>& source, const Box& inner, std::int64_t p, const View<Out, 4>& tensor,
           int n_threads) {
  std::vector<Child> children;
  children.reserve(static_cast<std::size_t>(n_children(p)));
  for (std::int64_t i = 0; i < n_children(p); ++i) children.emplace_back(i, inner, p);
  const auto order = transfer_order(memory_order(source.box.shape, source.box.strides),
                                    memory_order(tensor.shape, tensor.strides));
  const std::int64_t n_m = source.box.shape[0], n_slices = tensor.shape[order[0] + 1];
  const bool nontemporal = is_nontemporal<Out>(n_elements(tensor.shape));
  parallel_for(n_m * n_slices, n_threads, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      for (std::size_t c = 0; c < children.size(); ++c) {
        const std::int64_t m = i / n_slices;
        const auto channel = tensor.slice(m * n_children(p) + static_cast<std::int64_t>(c));
        write_slice(source, m, children[c], p, order, channel, i % n_slices, nontemporal);
      }
    }
    store_fence();
  });
  parallel_for(tensor.shape[0] * tensor.shape[1], n_threads, [&](auto begin, auto end) {
    for (std::int64_t i = begin; i < end; ++i) {
      const std::int64_t channel = i / tensor.shape[1], m = channel / n_children(p);
      const Fusion& fusion = source.fusions[static_cast<std::size_t>(m)];
      fill_outside(tensor.slice(channel),
                   children[static_cast<std::size_t>(channel % n_children(p))].box,
                   fused<Out>(0.0F, fusion), i % tensor.shape[1]);
    }
  });
}

/// Whether a modality has a voxel other than 0 among the first ones of the blocks.
template <typename T>
bool is_present(const Source<T>& source, std::int64_t m, const Box& inner, std::int64_t p) {
  const Shape<3> first = Child(0, inner, p).first;
  const View<const T, 3> box = every(source.box.slice(m), first, p);
  const View<const std::uint8_t, 3> mask = every(source.mask, first, p);
  const ZScore<T>& score = source.scores[static_cast<std::size_t>(m)];
  for (std::int64_t d = 0; d < box.shape[0]; ++d)
    for (std::int64_t h = 0; h < box.shape[1]; ++h)
      for (std::int64_t w = 0; w < box.shape[2]; ++w)
        if (*mask.at(d, h, w) && score(*box.at(d, h, w)) != 0) return true;
  return false;
}

template <typename T>
std::vector<Fusion> fusions_of(const NormalizeArgs& args, const Source<T>& source,
                               const Box& inner) {
  std::vector<Fusion> fusions(source.scores.size(), {1, 0, args.step});
  if (!args.gate.data) return fusions;
  std::vector<float> present(source.scores.size());
  for (std::size_t m = 0; m < present.size(); ++m) {
    const bool found = is_present(source, static_cast<std::int64_t>(m), inner, args.patch);
    present[m] = found ? 1.0F : 0.0F;
  }
  for (std::int64_t m = 0; m < source.box.shape[0]; ++m) {
    Fusion& fusion = fusions[static_cast<std::size_t>(m)];
    fusion.gain = gain_of(args.gate, args.gate_bias, m, present.data());
    fusion.background = *args.background.at(m);
  }
  return fusions;
}

/// The mask of a brain on the axes of the volume.
template <typename T>
View<const std::uint8_t, 3> mask_of(const Brain& brain, const View<const T, 4>& box,
                                    const std::array<std::size_t, 3>& order) {
  View<const std::uint8_t, 3> mask{brain.mask.data, {}, {}, {}};
  for (std::size_t i = 0; i < 3; ++i) {
    mask.shape[order[i]] = brain.mask.shape[i];
    mask.strides[order[i]] = brain.mask.strides[i];
  }
  for (std::size_t axis = 0; axis < 3; ++axis)
    if (box.strides[axis + 1] < 0) mask = mask.mirrored(axis);
  return mask;
}

template <typename T>
void run(const NormalizeArgs& args, int n_threads) {
  const View<const T, 4> box = args.volume.as<T>().cropped(args.box);
  const auto order = memory_order(box.shape, box.strides);
  View<const T, 4> in_order = box.permuted(order);
  for (std::size_t axis = 0; axis < 3; ++axis)
    if (in_order.strides[axis + 1] < 0) in_order = in_order.mirrored(axis);
  const Brain brain = find_brain(in_order, n_threads);
  Source<T> source{box, mask_of(brain, box, order), {}, {}};
  for (std::int64_t m = 0; m < box.shape[0]; ++m) {
    const Stats stats = stats_of_brain(in_order, brain, m, args.percentiles, n_threads);
    require<InputError>(
        std::isfinite(stats.std), "normalize: volume: modality ", m,
        " has NaN or infinite brain voxels, or values too large for float64 statistics");
    source.scores.emplace_back(stats);
    const std::array<double, 4> row{stats.lo, stats.hi, stats.mean, stats.std};
    std::copy(row.begin(), row.end(), args.stats.at(m));
  }
  const Box inner = centred(args.box, unpacked_shape(args.tensor.shape, args.patch));
  source.fusions = fusions_of(args, source, inner);
  dispatch_packed(args.tensor.dtype, [&](auto type) {
    using Out = typename decltype(type)::type;
    write(source, inner, args.patch, args.tensor.as<Out>(), n_threads);
  });
}

}  // namespace

void normalize_cpu(const NormalizeArgs& args, int n_threads) {
  dispatch(args.volume.dtype,
           [&](auto tag) { run<typename decltype(tag)::type>(args, n_threads); });
}

}  // namespace fastbts
