#include <algorithm>
#include <limits>

#include "core/array/dense.h"
#include "core/cuda/launch.h"
#include "ops/components.h"
#include "ops/components_kernel.cuh"
#include "ops/label_box.h"

namespace fastbts {

void components_cuda(const ComponentsArgs& args, Stream stream) {
  const cudaStream_t queue = cuda_stream(stream);
  CUDA_CHECK(cudaMemsetAsync(args.counts.data, 0, kComponentsCounts * sizeof(std::int64_t), queue));
  const View<std::uint8_t, 3> labels = args.labels.cropped(args.box);
  const std::int64_t n = n_elements(labels.shape);
  if (n == 0) return;
  const LabelBox box = label_box(labels);
  int *parent = args.scratch.at(0), *n_in_part = args.scratch.at(1);
  const int min_voxels =
      static_cast<int>(std::min<std::int64_t>(args.min_voxels, std::numeric_limits<int>::max()));
  components_begin_kernel<<<n_blocks(n), kBlockThreads, 0, queue>>>(box, parent, n_in_part);
  CUDA_CHECK_LAUNCH("components_begin_kernel");
  components_unite_kernel<<<n_blocks(n), kBlockThreads, 0, queue>>>(box, parent);
  CUDA_CHECK_LAUNCH("components_unite_kernel");
  components_count_kernel<<<n_blocks(n), kBlockThreads, 0, queue>>>(box, parent, n_in_part);
  CUDA_CHECK_LAUNCH("components_count_kernel");
  components_remove_kernel<<<n_blocks(n), kBlockThreads, 0, queue>>>(
      box, parent, n_in_part, min_voxels, reinterpret_cast<unsigned long long*>(args.counts.data));
  CUDA_CHECK_LAUNCH("components_remove_kernel");
}

}  // namespace fastbts
