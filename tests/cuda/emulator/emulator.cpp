// Runs the blocks of a grid, one after another, and the threads of a block as fibers.
#include "emulator.h"

#include <algorithm>
#include <cstdio>
#include <map>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "block.h"

// What a kernel declares as `extern __shared__ float shared[]`: as much as the largest GPU gives a block.
constexpr size_t SHARED_BYTES = 227 << 10;
alignas(1024) float shared[SHARED_BYTES / sizeof(float)];

namespace emulator {

namespace {

Block block;
std::string message;
unsigned skipped = 0;  // blocks of every row of a grid

std::map<std::string, Body>& kernels() {
    static std::map<std::string, Body> all;
    return all;
}

void park(State state, const char* where, void* at, unsigned mask = 0) {
    Thread& me = *block.running;
    me.state = state;
    me.where = where;
    me.at = at;
    me.mask = mask;
    me.fiber.switch_to(block.scheduler);
}

void thread_entry() {
    block.body(block.arguments);
    block.running->state = State::done;
    block.running->fiber.switch_to(block.scheduler);
}

// Threads that wait for each other must wait at one and the same place, and for the same lanes.
void compare(const char* what, const Thread& one, const Thread& other) {
    if (one.at == other.at && one.mask == other.mask) return;
    char masks[64];
    std::snprintf(masks, sizeof masks, ", for lanes %08x and %08x", one.mask, other.mask);
    message = std::string("divergent ") + what + ": " + one.where + " and " + other.where +
              (one.mask != other.mask ? masks : "");
}

// All threads that are not done wait for the block: let them go.
bool open_block_barrier() {
    const Thread* other = nullptr;
    for (const Thread& thread : block.threads) {
        if (thread.state == State::done) continue;
        if (thread.state != State::at_block_barrier) return false;
        if (other) compare("__syncthreads", *other, thread);
        other = &thread;
    }
    for (Thread& thread : block.threads)
        if (thread.state == State::at_block_barrier) thread.state = State::ready;
    block.epoch++;
    return other != nullptr;
}

// Lanes of a warp that have come to a shuffle together with all that their masks name, but for those that are done.
bool open_warp_barriers() {
    bool opened = false;
    for (size_t first = 0; first < block.threads.size(); first += 32) {
        Thread* const warp = &block.threads[first];
        const int lanes = (int)std::min<size_t>(32, block.threads.size() - first);
        for (int me = 0; me < lanes; me++) {
            if (warp[me].state != State::at_warp_barrier) continue;
            const auto wanted = [&](int lane) {
                return (warp[me].mask >> lane & 1) && warp[lane].state != State::done;
            };
            bool complete = true;
            for (int lane = 0; lane < lanes; lane++)
                if (wanted(lane)) complete &= warp[lane].state == State::at_warp_barrier;
            if (!complete) continue;
            for (int lane = 0; lane < lanes; lane++) {
                if (!wanted(lane)) continue;
                compare("shuffle", warp[me], warp[lane]);
                warp[lane].state = State::ready;
            }
            opened = true;
        }
    }
    return opened;
}

bool run_block(int order) {
    std::mt19937 random((unsigned)order);
    std::vector<int> turn(block.threads.size());
    std::iota(turn.begin(), turn.end(), 0);
    if (order == 1) std::reverse(turn.begin(), turn.end());
    for (;;) {
        if (order >= 2) std::shuffle(turn.begin(), turn.end(), random);
        bool ran = false, done = true;
        for (int i : turn) {
            Thread& thread = block.threads[i];
            if (thread.state == State::ready) {
                block.running = &thread;
                block.scheduler.switch_to(thread.fiber);
                ran = true;
            }
            done &= thread.state == State::done;
        }
        block.running = nullptr;
        if (done || !message.empty()) return message.empty();
        if (ran || open_warp_barriers() || open_block_barrier()) continue;
        for (const Thread& thread : block.threads)
            if (thread.state != State::done)
                message = std::string("divergent barrier: a thread waits at ") + thread.where;
        return false;
    }
}

void begin_block(uint3 index) {
    block.index = index;
    block.number++;
    block.epoch++;
    std::memset(shared, 0xff, block.shared.to - block.shared.from);  // NaN
    for (Thread& thread : block.threads) {
        thread.state = State::ready;
        thread.copies.clear();
        thread.closed.clear();
        thread.fiber.reset(thread_entry);
    }
}

}  // namespace

const Block& current_block() { return block; }

void fail(const char* why) {
    message = why;
    for (;;) block.running->fiber.switch_to(block.scheduler);
}

Registration::Registration(const char* name, Body body) { kernels()[name] = body; }

uint3 thread_index() { return block.running->index; }
uint3 block_index() { return block.index; }
uint3 block_size() { return block.size; }
uint3 grid_size() { return block.grid; }
int lane() { return block.running->lane; }

void wait_for_block(const char* where) { park(State::at_block_barrier, where, __builtin_return_address(0)); }

uint64_t exchange(unsigned mask, uint64_t value, int source, const char* where, void* at) {
    Thread& me = *block.running;
    if (!(mask >> me.lane & 1)) message = std::string("a lane outside its own mask at ") + where;
    me.given = value;
    park(State::at_warp_barrier, where, at, mask);
    if (source >= 0 && source < 32) {
        const size_t from = (&me - block.threads.data()) / 32 * 32 + source;
        const bool gives =
            (mask >> source & 1) && from < block.threads.size() && block.threads[from].state != State::done;
        if (gives)
            value = block.threads[from].given;
        else
            message = std::string("a shuffle from a lane that gives nothing at ") + where;
    }
    park(State::at_warp_barrier, where, at, mask);  // nobody gives the next value before all have this one
    return value;
}

template <class T>
T add_to(T* at, T value) {
    check_atomic(at);
    const T before = *at;
    *at += value;
    return before;
}

int add(int* at, int value) { return add_to(at, value); }
float add(float* at, float value) { return add_to(at, value); }

void begin_copy(float* to, const float* from) {
    void* instruction = __builtin_return_address(0);
    check_copy(to, from, instruction);
    block.running->copies.push_back({to, from ? *from : 0.f, instruction});
}

void close_copies() {
    Thread& me = *block.running;
    me.closed.push_back(std::move(me.copies));
    me.copies.clear();
}

void wait_for_copies(int under_way) {
    Thread& me = *block.running;
    while ((int)me.closed.size() > under_way) {
        for (const Copy& copy : me.closed.front()) {
            check_landing(copy.to, copy.at);
            *copy.to = copy.value;
        }
        me.closed.erase(me.closed.begin());
    }
}

}  // namespace emulator

using namespace emulator;

extern "C" __attribute__((visibility("default"))) const char* emulator_message() { return message.c_str(); }

// From now on leave out the first `blocks` along x of every launch.
extern "C" __attribute__((visibility("default"))) void emulator_skip(unsigned blocks) { skipped = blocks; }

// Launch a kernel by name, with arguments as for cuLaunchKernel. Threads run in ascending (order 0), descending (1) or
// random order (the seed). 0: done; otherwise emulator_message() says why not.
extern "C" __attribute__((visibility("default"))) int emulator_launch(const char* kernel, const unsigned grid[3],
                                                                      const unsigned size[3], size_t shared_bytes,
                                                                      void** arguments, int order) {
    message.clear();
    const auto found = kernels().find(kernel);
    const uint64_t threads = (uint64_t)size[0] * size[1] * size[2];
    if (found == kernels().end()) message = std::string("no kernel called ") + kernel;
    if (threads < 1 || threads > 1024) message = "a block has 1 to 1024 threads, not " + std::to_string(threads);
    if (shared_bytes > SHARED_BYTES) message = std::to_string(shared_bytes) + " bytes of shared memory are too many";
    if (grid[0] < 1 || grid[0] > 0x7fffffff || grid[1] < 1 || grid[1] > 65535 || grid[2] < 1 || grid[2] > 65535)
        message = "a grid has 1 to 2147483647 x 65535 x 65535 blocks";
    if (!message.empty()) return 1;

    block.grid = {grid[0], grid[1], grid[2]};
    block.size = {size[0], size[1], size[2]};
    block.body = found->second;
    block.arguments = arguments;
    block.shared = {(uintptr_t)shared, (uintptr_t)shared + shared_bytes};
    block.launch++;
    if (block.threads.size() != threads) block.threads = std::vector<Thread>(threads);
    for (unsigned i = 0; i < threads; i++) {
        block.threads[i].index = {i % size[0], i / size[0] % size[1], i / size[0] / size[1]};
        block.threads[i].lane = i % 32;
    }
    for (unsigned z = 0; z < grid[2]; z++)
        for (unsigned y = 0; y < grid[1]; y++)
            for (unsigned x = skipped; x < grid[0]; x++) {
                begin_block({x, y, z});
                if (!run_block(order)) return 2;
            }
    return 0;
}
