#include <algorithm>
#include <limits>

#include "core/array/dense.h"
#include "core/cuda/launch.h"
#include "ops/label_box.h"
#include "ops/stray_core.h"
#include "ops/stray_core_kernel.cuh"

namespace fastbts {

void stray_core_cuda(const StrayCoreArgs& args, Stream stream) {
  const cudaStream_t queue = cuda_stream(stream);
  CUDA_CHECK(cudaMemsetAsync(args.counts.data, 0, kStrayCoreCounts * sizeof(std::int64_t), queue));
  const View<std::uint8_t, 3> labels = args.labels.cropped(args.box);
  const std::int64_t n = n_elements(labels.shape);
  if (n == 0) return;
  const LabelBox box = label_box(labels);
  const CoreValues values{args.values[0], args.values[1], args.values[2]};
  const View<std::int32_t, 2>& scratch = args.scratch;
  const CoreParts parts{scratch.at(0), scratch.at(1), scratch.at(2), scratch.at(3)};
  const int min_voxels =
      static_cast<int>(std::min<std::int64_t>(args.min_voxels, std::numeric_limits<int>::max()));
  auto* counts = reinterpret_cast<unsigned long long*>(args.counts.data);
  stray_core_begin_kernel<<<n_blocks(n), kBlockThreads, 0, queue>>>(box, values, parts);
  CUDA_CHECK_LAUNCH("stray_core_begin_kernel");
  stray_core_unite_kernel<<<n_blocks(n), kBlockThreads, 0, queue>>>(box, parts.parent);
  CUDA_CHECK_LAUNCH("stray_core_unite_kernel");
  stray_core_count_kernel<<<n_blocks(n), kBlockThreads, 0, queue>>>(box, values, parts);
  CUDA_CHECK_LAUNCH("stray_core_count_kernel");
  stray_core_judge_kernel<<<n_blocks(n), kBlockThreads, 0, queue>>>(box, parts, min_voxels, counts);
  CUDA_CHECK_LAUNCH("stray_core_judge_kernel");
  stray_core_mark_kernel<<<n_blocks(n), kBlockThreads, 0, queue>>>(box, parts, min_voxels, counts);
  CUDA_CHECK_LAUNCH("stray_core_mark_kernel");
  for (int step = 1; step <= kCoreReach; ++step) {
    stray_core_spread_kernel<<<n_blocks(n), kBlockThreads, 0, queue>>>(box, values, parts.parent,
                                                                       step, counts);
    CUDA_CHECK_LAUNCH("stray_core_spread_kernel");
  }
  stray_core_change_kernel<<<n_blocks(n), kBlockThreads, 0, queue>>>(box, values, parts.parent,
                                                                     counts);
  CUDA_CHECK_LAUNCH("stray_core_change_kernel");
}

}  // namespace fastbts
