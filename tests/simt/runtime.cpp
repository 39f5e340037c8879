/// The CUDA runtime of the emulation: devices whose memory is host memory.
///
/// Work of a stream runs only when something waits for it, so that a missing wait shows as wrong
/// data; work of the default stream runs at once. Copies from pageable memory take its content when
/// they are queued, copies to it wait, as CUDA's do. New memory is full of a mark. Memory of
/// nobody is not device memory. Functions `simt_*` are for tests: devices, log, failures.
#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "cuda_runtime_api.h"

#define EXPORTED extern "C" __attribute__((visibility("default")))

namespace simt {

cudaStream_t only_stream = nullptr;

namespace {

constexpr int kMark = 0xA5;  // what new memory is full of
constexpr std::size_t kMemoryBytes = std::size_t{16} << 30;

using Work = std::function<void()>;
using Graph = std::vector<Work>;

struct Queue {
  int device = 0;
  bool blocking = true;  // waits for the default stream, which waits for it
  std::deque<Work> work{};
  std::uint64_t n_queued = 0, n_done = 0;
  std::unique_ptr<Graph> capture{};
  bool invalidated = false;  // the capture
};

struct Event {
  std::shared_ptr<Queue> queue;
  std::uint64_t n = 0;  // has happened when so much of the queue's work is done
};

struct Range {
  std::size_t n_bytes;
  cudaMemoryType type;
  int device;
};

struct Failure {
  int n_before;  // calls that succeed first
  cudaError_t error;
};

/// All that the runtime knows; `lock` is held for moments only, never while work runs.
struct Runtime {
  std::mutex lock;
  std::recursive_mutex running;
  int n_devices = 1;
  std::map<std::uintptr_t, Range> memory;
  std::map<cudaStream_t, std::shared_ptr<Queue>> queues;
  std::map<int, std::shared_ptr<Queue>> default_queues;
  std::map<std::string, Failure> failures;
  std::vector<std::string> log;
  std::string returned_log;
};

Runtime& runtime() {
  static Runtime instance;
  return instance;
}

using Lock = std::lock_guard<std::mutex>;

thread_local int current_device = 0;
thread_local cudaError_t last_error = cudaSuccess;
thread_local std::string last_message = "no error";

void note(const std::string& line) {
  const Lock hold(runtime().lock);
  runtime().log.push_back(line);
}

cudaError_t failed(cudaError_t error, const char* message) {
  set_error(error, message);
  return error;
}

std::shared_ptr<Queue> queue_of(cudaStream_t stream) {
  const Lock hold(runtime().lock);
  if (stream == nullptr || stream == only_stream) {
    std::shared_ptr<Queue>& queue = runtime().default_queues[current_device];
    if (!queue) queue = std::make_shared<Queue>(Queue{current_device});
    return queue;
  }
  const auto found = runtime().queues.find(stream);
  return found == runtime().queues.end() ? nullptr : found->second;
}

/// Runs the first n pieces of work of a queue.
void run_until(Queue& queue, std::uint64_t n) {
  const std::lock_guard<std::recursive_mutex> hold(runtime().running);
  while (queue.n_done < n) {
    Work next;
    {
      const Lock brief(runtime().lock);
      next = std::move(queue.work.front());
      queue.work.pop_front();
      ++queue.n_done;
    }
    next();
  }
}

void run_all(Queue& queue) {
  std::uint64_t n;
  {
    const Lock hold(runtime().lock);
    n = queue.n_queued;
  }
  run_until(queue, n);
}

/// Runs the work of a device's streams; of the blocking ones only, if asked.
void run_device(int device, bool blocking_only) {
  std::vector<std::shared_ptr<Queue>> chosen;
  {
    const Lock hold(runtime().lock);
    for (const auto& [_, queue] : runtime().queues)
      if (queue->device == device && (queue->blocking || !blocking_only)) chosen.push_back(queue);
  }
  for (const auto& queue : chosen) run_all(*queue);
}

/// As a call that waits: an error of a kernel is returned, and kept for cudaGetLastError.
template <typename Fn>
cudaError_t waited(Fn&& run) {
  try {
    run();
    return cudaSuccess;
  } catch (const std::exception& error) {
    return failed(cudaErrorLaunchFailure, error.what());
  }
}

void push(Queue& queue, Work work) {
  const Lock hold(runtime().lock);
  queue.work.push_back(std::move(work));
  ++queue.n_queued;
}

/// Queues work. Errors of work that runs at once are thrown.
cudaError_t enqueue(cudaStream_t stream, Work work) {
  if (only_stream && stream != only_stream)
    throw std::logic_error("work on another stream than the one given");
  const auto queue = queue_of(stream);
  if (!queue) return failed(cudaErrorInvalidResourceHandle, "a stream that does not exist");
  if (queue->device != current_device)
    return failed(cudaErrorInvalidResourceHandle, "a stream of another device");
  if (queue->capture) return queue->capture->push_back(std::move(work)), cudaSuccess;
  push(*queue, std::move(work));
  if (stream == nullptr || stream == only_stream) {
    run_device(queue->device, true);
    run_all(*queue);
  }
  return cudaSuccess;
}

const std::pair<const std::uintptr_t, Range>* range_of(const void* address) {
  const auto at = reinterpret_cast<std::uintptr_t>(address);
  auto next = runtime().memory.upper_bound(at);
  if (next == runtime().memory.begin()) return nullptr;
  --next;
  return at < next->first + std::max<std::size_t>(1, next->second.n_bytes) ? &*next : nullptr;
}

cudaMemoryType type_of(const void* address) {
  const Lock hold(runtime().lock);
  const auto* range = range_of(address);
  return range ? range->second.type : cudaMemoryTypeUnregistered;
}

std::size_t n_used(int device) {
  std::size_t n = 0;
  for (const auto& [_, range] : runtime().memory)
    if (range.type == cudaMemoryTypeDevice && range.device == device) n += range.n_bytes;
  return n;
}

cudaError_t allocate(void** address, std::size_t n_bytes, cudaMemoryType type) {
  const Lock hold(runtime().lock);
  *address = nullptr;
  if (n_bytes == 0) return cudaSuccess;
  const bool fits = type == cudaMemoryTypeHost || n_used(current_device) + n_bytes <= kMemoryBytes;
  if (!fits) return failed(cudaErrorMemoryAllocation, "out of memory");
  *address = std::aligned_alloc(256, (n_bytes + 255) / 256 * 256);
  std::memset(*address, kMark, n_bytes);
  runtime().memory[reinterpret_cast<std::uintptr_t>(*address)] = {n_bytes, type, current_device};
  return cudaSuccess;
}

cudaError_t release(void* address) {
  if (address == nullptr) return cudaSuccess;
  const Lock hold(runtime().lock);
  const auto found = runtime().memory.find(reinterpret_cast<std::uintptr_t>(address));
  if (found == runtime().memory.end())
    return failed(cudaErrorInvalidValue, "free of what was not allocated");
  std::memset(address, ~kMark & 0xFF, found->second.n_bytes);
  runtime().memory.erase(found);
  std::free(address);
  return cudaSuccess;
}

bool is_pageable(const void* address) { return type_of(address) == cudaMemoryTypeUnregistered; }

/// Whether the addresses are where the kind says, as far as that is known.
bool fits(cudaMemcpyKind kind, const void* to, const void* from) {
  const auto on_device = [](const void* p) { return type_of(p) == cudaMemoryTypeDevice; };
  if (kind == cudaMemcpyHostToDevice) return on_device(to) && !on_device(from);
  if (kind == cudaMemcpyDeviceToHost) return on_device(from) && !on_device(to);
  return true;
}

const char* name_of(cudaMemcpyKind kind) {
  const char* const names[] = {"host to host", "host to device", "device to host",
                               "device to device", "any"};
  return names[kind];
}

}  // namespace

void set_error(cudaError_t error, const char* message) {
  last_error = error;
  last_message = message;
}

cudaError_t injected(const char* name) {
  const Lock hold(runtime().lock);
  const auto found = runtime().failures.find(name);
  if (found == runtime().failures.end() || found->second.n_before-- > 0) return cudaSuccess;
  const cudaError_t error = found->second.error;
  runtime().failures.erase(found);
  return failed(error, "a failure that the test asked for");
}

void launch_on(cudaStream_t stream, const char* name, Work kernel) {
  note(std::string("launch ") + name);
  if (injected(name) == cudaSuccess) enqueue(stream, std::move(kernel));
}

}  // namespace simt

using namespace simt;

/// Returns the error that a test asked for in place of this function.
#define MAY_FAIL \
  if (const cudaError_t error = injected(__func__)) return error

cudaError_t cudaGetLastError() { return std::exchange(last_error, cudaSuccess); }

const char* cudaGetErrorName(cudaError_t error) {
  switch (error) {
    case cudaSuccess:
      return "cudaSuccess";
    case cudaErrorInvalidValue:
      return "cudaErrorInvalidValue";
    case cudaErrorMemoryAllocation:
      return "cudaErrorMemoryAllocation";
    case cudaErrorInvalidConfiguration:
      return "cudaErrorInvalidConfiguration";
    case cudaErrorInsufficientDriver:
      return "cudaErrorInsufficientDriver";
    case cudaErrorNoDevice:
      return "cudaErrorNoDevice";
    case cudaErrorInvalidDevice:
      return "cudaErrorInvalidDevice";
    case cudaErrorInvalidResourceHandle:
      return "cudaErrorInvalidResourceHandle";
    case cudaErrorLaunchFailure:
      return "cudaErrorLaunchFailure";
    case cudaErrorStreamCaptureUnsupported:
      return "cudaErrorStreamCaptureUnsupported";
    case cudaErrorStreamCaptureInvalidated:
      return "cudaErrorStreamCaptureInvalidated";
  }
  return "unrecognized error code";
}
const char* cudaGetErrorString(cudaError_t) { return last_message.c_str(); }

cudaError_t cudaGetDeviceCount(int* n) {
  MAY_FAIL;
  *n = runtime().n_devices;
  return *n ? cudaSuccess : failed(cudaErrorNoDevice, "no CUDA-capable device is detected");
}
cudaError_t cudaGetDevice(int* device) { return *device = current_device, cudaSuccess; }
cudaError_t cudaSetDevice(int device) {
  MAY_FAIL;
  if (device < 0 || device >= runtime().n_devices)
    return failed(cudaErrorInvalidDevice, "invalid device ordinal");
  current_device = device;
  return cudaSuccess;
}
cudaError_t cudaDeviceSynchronize() {
  MAY_FAIL;
  note("wait");
  return waited([] { run_device(current_device, false); });
}

cudaError_t cudaMalloc(void** address, std::size_t n_bytes) {
  MAY_FAIL;
  return allocate(address, n_bytes, cudaMemoryTypeDevice);
}
cudaError_t cudaMallocAsync(void** address, std::size_t n_bytes, cudaStream_t) {
  MAY_FAIL;
  return allocate(address, n_bytes, cudaMemoryTypeDevice);
}
cudaError_t cudaMallocHost(void** address, std::size_t n_bytes) {
  MAY_FAIL;
  return allocate(address, n_bytes, cudaMemoryTypeHost);
}
cudaError_t cudaFree(void* address) {
  cudaPointerAttributes attributes{};
  cudaPointerGetAttributes(&attributes, address);
  const cudaError_t error = waited([&] { run_device(attributes.device, false); });
  return error ? error : release(address);
}
cudaError_t cudaFreeAsync(void* address, cudaStream_t stream) {
  return enqueue(stream, [=] { release(address); });
}
cudaError_t cudaFreeHost(void* address) { return release(address); }
cudaError_t cudaMemGetInfo(std::size_t* n_free, std::size_t* n_total) {
  const Lock hold(runtime().lock);
  *n_total = kMemoryBytes;
  *n_free = kMemoryBytes - n_used(current_device);
  return cudaSuccess;
}
cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* attributes, const void* address) {
  const Lock hold(runtime().lock);
  const auto* range = range_of(address);
  if (range)
    *attributes = {range->second.type, range->second.device};
  else
    *attributes = {cudaMemoryTypeUnregistered, -2};
  return cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t n_bytes, cudaMemcpyKind kind,
                            cudaStream_t stream) {
  MAY_FAIL;
  if (n_bytes == 0) return cudaSuccess;
  if (!fits(kind, to, from)) return failed(cudaErrorInvalidValue, "invalid argument");
  note(std::string("copy ") + name_of(kind) + " " + std::to_string(n_bytes));
  const auto queue = queue_of(stream);
  const bool captured = queue && queue->capture;
  if (kind == cudaMemcpyHostToDevice && is_pageable(from) && !captured) {
    const auto* bytes = static_cast<const char*>(from);
    return enqueue(stream, [to, content = std::vector<char>(bytes, bytes + n_bytes)] {
      std::memcpy(to, content.data(), content.size());
    });
  }
  const cudaError_t error = enqueue(stream, [=] { std::memcpy(to, from, n_bytes); });
  if (error || captured || kind != cudaMemcpyDeviceToHost || !is_pageable(to)) return error;
  return waited([&] { run_all(*queue); });
}
cudaError_t cudaMemsetAsync(void* to, int value, std::size_t n_bytes, cudaStream_t stream) {
  MAY_FAIL;
  note("set " + std::to_string(n_bytes));
  return enqueue(stream, [=] { std::memset(to, value, n_bytes); });
}
cudaError_t cudaLaunchHostFunc(cudaStream_t stream, cudaHostFn_t function, void* argument) {
  MAY_FAIL;
  return enqueue(stream, [=] { function(argument); });
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags) {
  MAY_FAIL;
  const auto queue = std::make_shared<Queue>(Queue{current_device, flags != cudaStreamNonBlocking});
  *stream = reinterpret_cast<cudaStream_t>(queue.get());
  const Lock hold(runtime().lock);
  runtime().queues[*stream] = queue;
  return cudaSuccess;
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  const auto queue = queue_of(stream);
  if (!queue) return failed(cudaErrorInvalidResourceHandle, "a stream that does not exist");
  const cudaError_t error = waited([&] { run_all(*queue); });
  const Lock hold(runtime().lock);
  runtime().queues.erase(stream);
  return error;
}
cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  MAY_FAIL;
  if (only_stream && stream != only_stream)
    throw std::logic_error("a wait for another stream than the one given");
  const auto queue = queue_of(stream);
  if (!queue) return failed(cudaErrorInvalidResourceHandle, "a stream that does not exist");
  if (queue->capture) {
    queue->invalidated = true;
    return failed(cudaErrorStreamCaptureUnsupported, "a wait while the stream is captured");
  }
  note("wait");
  return waited([&] {
    if (stream == nullptr) run_device(queue->device, true);
    run_all(*queue);
  });
}
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t handle, unsigned) {
  MAY_FAIL;
  const Event event = *reinterpret_cast<Event*>(handle);
  if (!event.queue) return cudaSuccess;
  return enqueue(stream, [event] { run_until(*event.queue, event.n); });
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  *event = reinterpret_cast<cudaEvent_t>(new Event);
  return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  MAY_FAIL;
  const auto queue = queue_of(stream);
  if (!queue) return failed(cudaErrorInvalidResourceHandle, "a stream that does not exist");
  const Lock hold(runtime().lock);
  *reinterpret_cast<Event*>(event) = {queue, queue->n_queued};
  return cudaSuccess;
}
cudaError_t cudaEventSynchronize(cudaEvent_t handle) {
  MAY_FAIL;
  note("wait");
  const Event event = *reinterpret_cast<Event*>(handle);
  return waited([&] {
    if (event.queue) run_until(*event.queue, event.n);
  });
}
cudaError_t cudaEventDestroy(cudaEvent_t event) {
  delete reinterpret_cast<Event*>(event);
  return cudaSuccess;
}

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, int) {
  MAY_FAIL;
  const auto queue = queue_of(stream);
  if (!queue || !stream || queue->capture)
    return failed(cudaErrorStreamCaptureUnsupported, "a stream that cannot be captured");
  queue->capture = std::make_unique<Graph>();
  queue->invalidated = false;
  return cudaSuccess;
}
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  *graph = nullptr;
  const auto queue = queue_of(stream);
  if (!queue || !queue->capture)
    return failed(cudaErrorInvalidValue, "a stream that is not captured");
  const auto captured = std::move(queue->capture);
  MAY_FAIL;
  if (queue->invalidated)
    return failed(cudaErrorStreamCaptureInvalidated, "the capture was invalidated");
  *graph = reinterpret_cast<cudaGraph_t>(new Graph(std::move(*captured)));
  return cudaSuccess;
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t* executable, cudaGraph_t graph,
                                 unsigned long long) {
  MAY_FAIL;
  *executable = reinterpret_cast<cudaGraphExec_t>(new Graph(*reinterpret_cast<Graph*>(graph)));
  return cudaSuccess;
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t executable, cudaStream_t stream) {
  MAY_FAIL;
  note("graph");
  for (const Work& work : *reinterpret_cast<Graph*>(executable))
    if (const cudaError_t error = enqueue(stream, work)) return error;
  return cudaSuccess;
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t executable) {
  delete reinterpret_cast<Graph*>(executable);
  return cudaSuccess;
}
cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  delete reinterpret_cast<Graph*>(graph);
  return cudaSuccess;
}

/// Begins anew with so many devices: an empty log, no failures to come.
EXPORTED void simt_reset(int n_devices) {
  const Lock hold(runtime().lock);
  runtime().n_devices = n_devices;
  runtime().failures.clear();
  runtime().log.clear();
}

/// What was asked of the runtime since the reset or the last call, a line each.
EXPORTED const char* simt_take_log() {
  const Lock hold(runtime().lock);
  runtime().returned_log.clear();
  for (const std::string& line : std::exchange(runtime().log, {}))
    runtime().returned_log += line + "\n";
  return runtime().returned_log.c_str();
}

/// Makes a call of this function, or a launch of this kernel, fail once, after so many.
EXPORTED void simt_fail(const char* name, int n_before, int error) {
  const Lock hold(runtime().lock);
  runtime().failures[name] = {n_before, static_cast<cudaError_t>(error)};
}

/// Makes host memory memory of a device, as if it had been allocated there.
EXPORTED void simt_adopt(void* address, std::size_t n_bytes, int device) {
  const Lock hold(runtime().lock);
  runtime().memory[reinterpret_cast<std::uintptr_t>(address)] = {n_bytes, cudaMemoryTypeDevice,
                                                                 device};
}

/// Forgets memory that was adopted.
EXPORTED void simt_abandon(void* address) {
  const Lock hold(runtime().lock);
  runtime().memory.erase(reinterpret_cast<std::uintptr_t>(address));
}
