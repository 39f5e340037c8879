#include "ops/brain_box.h"

#include "core/array/error.h"
#include "core/cuda/device.h"

namespace fastbts {

void brain_box(const BrainBoxArgs& args, int n_threads, Stream stream) {
  const std::int64_t n_modalities = args.volume.shape[0];
  require<InputError>(n_modalities > 0,
                      "brain_box: volume: expected at least one modality, got shape ",
                      args.volume.shape);
  require<InputError>(args.found.shape[0] == 7 + 2 * n_modalities,
                      "brain_box: found: expected shape (", 7 + 2 * n_modalities, "), got ",
                      args.found.shape);
  on_device(
      args.volume.device, [&] { brain_box_cpu(args, n_threads); },
      [&](auto) { brain_box_cuda(args, stream); });
}

}  // namespace fastbts
