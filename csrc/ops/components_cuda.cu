#include <limits>

#include "core/cuda_check.h"
#include "core/dense.h"
#include "ops/components.h"
#include "ops/components_kernel.cuh"

namespace fastbts {

void components_cuda(const ComponentsArgs& args, const ComponentsScratch& scratch, Stream stream) {
  const View<std::uint8_t, 3> labels = args.labels.cropped(args.box);
  const std::int64_t n = n_elements(labels.shape);
  constexpr std::int64_t kMost = std::numeric_limits<int>::max();
  require<OptionsError>(n < kMost, "components: box: expected fewer than 2^31 voxels on a CUDA device, got ", n);
  const cudaStream_t queue = cuda_stream(stream);
  CUDA_CHECK(cudaMemsetAsync(scratch.counts, 0, kComponentsCounts * sizeof(*scratch.counts), queue));
  if (n == 0) return;
  LabelBox box{labels.data, {}, {}};
  for (std::size_t axis = 0; axis < 3; ++axis) {
    box.size[axis] = static_cast<int>(labels.shape[axis]);
    box.steps[axis] = labels.strides[axis];
  }
  const int min_voxels = static_cast<int>(std::min(args.min_voxels, kMost));
  components_begin_kernel<<<n_blocks(n), kBlockThreads, 0, queue>>>(box, scratch.parent, scratch.n_in_part);
  CUDA_CHECK_LAUNCH("components_begin_kernel");
  components_unite_kernel<<<n_blocks(n), kBlockThreads, 0, queue>>>(box, scratch.parent);
  CUDA_CHECK_LAUNCH("components_unite_kernel");
  components_count_kernel<<<n_blocks(n), kBlockThreads, 0, queue>>>(box, scratch.parent, scratch.n_in_part);
  CUDA_CHECK_LAUNCH("components_count_kernel");
  components_remove_kernel<<<n_blocks(n), kBlockThreads, 0, queue>>>(box, scratch.parent, scratch.n_in_part, min_voxels,
                                                                     scratch.counts);
  CUDA_CHECK_LAUNCH("components_remove_kernel");
}

}  // namespace fastbts
