// The checked build: the kernel is compiled with -fsanitize=thread and linked with these functions instead of the
// sanitizer's library. Each load and store then comes here first, with its address.
//
// Found: reads and writes outside the registered buffers and the shared memory asked for; reads of shared memory, or of
// buffers registered as uninitialised, that nothing has written; what of these is never written; races, that is two
// accesses of one place, one of them a write, by threads that no barrier orders. Blocks of a launch are never ordered;
// launches are. An access at an address for which its type is not aligned ends the launch, as on a GPU. Counted: how many wavefronts (shared memory: accesses to one bank wait for each other) and 32-byte
// sectors (global) a warp's request takes.
#include <algorithm>
#include <cstdio>
#include <map>
#include <string>
#include <unordered_map>
#include <utility>

#include "block.h"

namespace emulator {

namespace {

constexpr size_t GRAIN = 2;  // bytes watched together: the smallest element that a kernel stores

struct Access {
    uint64_t launch = 0, block = 0, epoch = 0;
    const Thread* thread = nullptr;

    bool is_ordered_before(const Access& now) const {
        if (!thread || launch != now.launch) return true;
        return block == now.block && (thread == now.thread || epoch != now.epoch);
    }
};

struct Grain {
    Access write, read;
    bool is_initialised = false, is_atomic = false;
    bool read_by_threads = false,
         read_by_blocks = false;  // by several since the last write: of this epoch, of this launch
};

struct Buffer {
    Range range;
    std::string name;
    bool is_initialised;
    std::vector<Grain> grains;
};

enum Kind { shared_load, shared_store, global_load, global_store, copy_load, kinds };

struct Counts {
    long long races, out_of_bounds, uninitialised, unwritten;
    long long requests[kinds], costs[kinds];  // wavefronts of shared memory, sectors of global
};

struct Request {
    Kind kind;
    size_t size;
    std::vector<uintptr_t> addresses;
};

std::vector<Buffer> buffers;
Buffer shared_memory{{0, 0}, "shared memory", false, {}};
Counts counts;
std::string findings;
// Requests of the current epoch: the n-th time that the lanes of a warp come to an instruction is one request.
std::map<std::pair<void*, size_t>, std::vector<Request>> pending;
std::unordered_map<uint64_t, size_t> times;
uint64_t pending_epoch = 0;

size_t wavefronts(const Request& request) {
    std::map<uintptr_t, std::vector<uintptr_t>> words;  // of each bank
    size_t most = 0;
    for (uintptr_t address : request.addresses)
        for (uintptr_t word = address / 4; word <= (address + request.size - 1) / 4; word++) {
            std::vector<uintptr_t>& bank = words[word % 32];
            if (std::find(bank.begin(), bank.end(), word) == bank.end()) bank.push_back(word);
            most = std::max(most, bank.size());
        }
    return most;
}

size_t sectors(const Request& request) {
    std::vector<uintptr_t> touched;
    for (uintptr_t address : request.addresses)
        for (uintptr_t sector = address / 32; sector <= (address + request.size - 1) / 32; sector++)
            touched.push_back(sector);
    std::sort(touched.begin(), touched.end());
    return std::unique(touched.begin(), touched.end()) - touched.begin();
}

void count_pending() {
    for (const auto& entry : pending)
        for (const Request& request : entry.second) {
            if (request.addresses.empty()) continue;
            counts.requests[request.kind]++;
            const bool is_shared = request.kind == shared_load || request.kind == shared_store;
            counts.costs[request.kind] += is_shared ? wavefronts(request) : sectors(request);
        }
    pending.clear();
    times.clear();
}

void count(const Thread* thread, uintptr_t at, size_t size, Kind kind, void* instruction) {
    const size_t number = thread - current_block().threads.data();
    if (pending_epoch != current_block().epoch) count_pending();
    pending_epoch = current_block().epoch;
    const size_t time = times[(uint64_t)instruction * 4 * 1024 + kind % 2 * 1024 + number]++;
    std::vector<Request>& requests = pending[{(char*)instruction + kind, number / 32}];
    if (requests.size() <= time) requests.resize(time + 1, {kind, size, {}});
    if (at) requests[time].addresses.push_back(at);
}

void report(long long& counter, const char* what, const Buffer* buffer, uintptr_t at, bool is_write,
            const Access* other) {
    if (counter++ >= 3) return;
    const Block& block = current_block();
    const unsigned thread = (unsigned)(block.running - block.threads.data());
    char text[256];
    std::snprintf(text, sizeof text, "%s: %s %s byte %zu by thread %u of block %llu%s%s\n", what,
                  is_write ? "write to" : "read of", buffer ? buffer->name.c_str() : "unknown memory",
                  buffer ? (size_t)(at - buffer->range.from) : (size_t)at, thread, (unsigned long long)block.number,
                  other ? ", against thread " : "",
                  other ? std::to_string(other->thread - block.threads.data()).c_str() : "");
    findings += text;
}

// Shared memory is new in every block, and the buffers of a launch are what the test has registered.
Buffer* find_buffer(uintptr_t at, size_t size) {
    const Block& block = current_block();
    if (block.shared.contains(at, size)) {
        shared_memory.range = block.shared;
        shared_memory.grains.resize(
            std::max(shared_memory.grains.size(), (block.shared.to - block.shared.from) / GRAIN + 1));
        return &shared_memory;
    }
    for (Buffer& buffer : buffers)
        if (buffer.range.contains(at, size)) return &buffer;
    return nullptr;
}

enum class Effect { read, write, begin_write, atomic };

void watch(Buffer& buffer, uintptr_t at, size_t size, Effect effect) {
    const Block& block = current_block();
    const Access now{block.launch, block.number, block.epoch, block.running};
    bool races = false, is_uninitialised = false;  // an access counts once, however many grains it has
    for (size_t i = (at - buffer.range.from) / GRAIN; i <= (at + size - 1 - buffer.range.from) / GRAIN; i++) {
        Grain& grain = buffer.grains[i];
        if (&buffer == &shared_memory && grain.write.block != block.number && grain.read.block != block.number)
            grain = Grain();
        const uintptr_t place = buffer.range.from + i * GRAIN;
        const bool both_atomic = effect == Effect::atomic && grain.is_atomic;
        if (!grain.write.is_ordered_before(now) && !both_atomic && !std::exchange(races, true))
            report(counts.races, "race", &buffer, place, effect != Effect::read, &grain.write);
        if (effect == Effect::read) {
            if (!grain.is_initialised && !std::exchange(is_uninitialised, true))
                report(counts.uninitialised, "uninitialised", &buffer, place, false, nullptr);
            const bool same_launch = grain.read.thread && grain.read.launch == now.launch;
            grain.read_by_blocks = same_launch && (grain.read_by_blocks || grain.read.block != now.block);
            const bool same_epoch = same_launch && grain.read.epoch == now.epoch;
            grain.read_by_threads = same_epoch && (grain.read_by_threads || grain.read.thread != now.thread);
            grain.read = now;
            continue;
        }
        const bool others_read = grain.read.launch == now.launch &&
                                 (grain.read_by_blocks || (grain.read_by_threads && grain.read.epoch == now.epoch));
        if (!grain.read.is_ordered_before(now) || others_read)
            report(counts.races, "race", &buffer, place, true, &grain.read);
        grain.write = now;
        grain.is_atomic = effect == Effect::atomic;
        grain.is_initialised = effect != Effect::begin_write && (effect != Effect::atomic || grain.is_initialised);
    }
}

void access(const void* pointer, size_t size, Effect effect, bool is_copy, void* instruction) {
    const Thread* running = current_block().running;
    const auto at = (uintptr_t)pointer;
    if (!running || running->fiber.owns(pointer)) return;
    Buffer* buffer = find_buffer(at, size);
    const bool is_write = effect != Effect::read;
    if (!buffer) {
        report(counts.out_of_bounds, "out of bounds", nullptr, at, is_write, nullptr);
        return;
    }
    watch(*buffer, at, size, effect);
    const bool is_shared = buffer == &shared_memory;
    const Kind kind = is_copy && !is_shared ? copy_load
                      : is_shared           ? (is_write ? shared_store : shared_load)
                                            : (is_write ? global_store : global_load);
    if (effect != Effect::begin_write) count(running, at, size, kind, instruction);
}

}  // namespace

void check_copy(const float* to, const float* from, void* instruction) {
    // The copy may land at any time from now on, so what it races with is found here; until it lands nothing can be
    // read.
    access(to, sizeof(float), Effect::begin_write, true, instruction);
    if (from)
        access(from, sizeof(float), Effect::read, true, instruction);
    else  // a request of the warp nevertheless, in which this lane reads nothing
        count(current_block().running, 0, sizeof(float), copy_load, instruction);
}

void check_landing(const float* to, void* instruction) { access(to, sizeof(float), Effect::write, true, instruction); }

void check_atomic(const void* at) { access(at, sizeof(int), Effect::atomic, false, __builtin_return_address(0)); }

}  // namespace emulator

using namespace emulator;

#define EXPORT extern "C" __attribute__((visibility("default")))

// Buffers that kernels may touch; `is_initialised`: they hold what a launch may read.
EXPORT void emulator_register(const void* at, size_t bytes, const char* name, int is_initialised) {
    Grain grain;
    grain.is_initialised = is_initialised;
    buffers.push_back({{(uintptr_t)at, (uintptr_t)at + bytes},
                       name,
                       (bool)is_initialised,
                       std::vector<Grain>(bytes / GRAIN + 1, grain)});
}

EXPORT void emulator_forget() {
    buffers.clear();
    counts = Counts();
    findings.clear();
}

// What was found since the last `emulator_forget`, and the first findings in words.
EXPORT const char* emulator_report(Counts* to) {
    count_pending();
    *to = counts;
    for (const Buffer& buffer : buffers)
        for (size_t i = 0; i < (buffer.range.to - buffer.range.from) / GRAIN; i++)
            to->unwritten += !buffer.grains[i].is_initialised;
    return findings.c_str();
}

// What -fsanitize=thread calls.
#define HERE __builtin_return_address(0)
#define HOOKS(size)                                                                                    \
    EXPORT void __tsan_read##size(void* at) { access(at, size, Effect::read, false, HERE); }           \
    EXPORT void __tsan_write##size(void* at) { access(at, size, Effect::write, false, HERE); }         \
    EXPORT void __tsan_unaligned_read##size(void* at) { access(at, size, Effect::read, false, HERE); } \
    EXPORT void __tsan_unaligned_write##size(void* at) { access(at, size, Effect::write, false, HERE); }
HOOKS(1)
HOOKS(2)
HOOKS(4)
HOOKS(8)
HOOKS(16)
EXPORT void __tsan_read_range(void* at, size_t size) { access(at, size, Effect::read, false, HERE); }
EXPORT void __tsan_write_range(void* at, size_t size) { access(at, size, Effect::write, false, HERE); }
EXPORT void __tsan_init() {}

// What -fsanitize=alignment calls, with the place of the source first in what it tells.
struct Place {
    const char* file;
    unsigned line, column;
};
EXPORT void __ubsan_handle_type_mismatch_v1(const Place* place, uintptr_t at) {
    const std::string why = "misaligned: an address of " + std::to_string(at % 256) + " modulo 256 at ";
    fail((why + place->file + ":" + std::to_string(place->line)).c_str());
}
EXPORT void __tsan_func_entry(void*) {}
EXPORT void __tsan_func_exit() {}
