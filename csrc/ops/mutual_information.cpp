#include "ops/mutual_information.h"

#include <cmath>

#include "core/array/error.h"

namespace fastbts {
namespace {

void require_finite(const View<const double, 3>& maps) {
  for (std::int64_t k = 0; k < maps.shape[0]; ++k) {
    for (std::int64_t i = 0; i < 12; ++i) {
      const double value = *maps.at(k, i / 4, i % 4);
      require<OptionsError>(std::isfinite(value),
                            "mutual_information: maps: expected finite numbers, got ", value);
    }
  }
}

}  // namespace

void mutual_information(const MutualInformationArgs& args, int n_threads, Stream) {
  const auto& [points, values, moving, maps, out] = args;
  require<DeviceError>(!points.device.is_cuda,
                       "mutual_information: expected arrays on the CPU, got them on cuda:",
                       points.device.index, "; there is no CUDA version: copy them to the host");
  constexpr std::int64_t kMaxPoints = 1 << 24;
  require<InputError>(points.shape[1] == 3 && points.shape[0] < kMaxPoints,
                      "mutual_information: points: expected shape (N, 3) with N < ", kMaxPoints,
                      ", got ", points.shape);
  require<InputError>(values.shape[0] == points.shape[0],
                      "mutual_information: values: expected one for each of ", points.shape[0],
                      " points, got ", values.shape[0]);
  require<InputError>(moving.shape[0] > 0 && moving.shape[1] > 0 && moving.shape[2] > 0,
                      "mutual_information: moving: expected at least one voxel, got shape ",
                      moving.shape);
  require<InputError>(maps.shape[1] == 3 && maps.shape[2] == 4,
                      "mutual_information: maps: expected shape (K, 3, 4), got ", maps.shape);
  const Shape<2> results{maps.shape[0], 2};
  require<InputError>(out.shape == results, "mutual_information: out: expected shape ", results,
                      ", got ", out.shape);
  require_finite(maps);
  mutual_information_cpu(args, n_threads);
}

}  // namespace fastbts
