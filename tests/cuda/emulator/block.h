// The block that runs: its threads, and what the checks need to know of them.
#pragma once
#include <vector>

#include "emulator.h"
#include "fibers.h"

namespace emulator {

enum class State { ready, at_block_barrier, at_warp_barrier, done };

// An asynchronous copy under way.
struct Copy {
    float* to;
    float value;
    void* at;  // the instruction that asked for it
};

struct Thread {
    uint3 index;
    int lane;
    State state;
    const char* where;  // it waits
    void* at;           // the instruction of it: one line may be several
    unsigned mask;      // of the lanes it waits for
    uint64_t given;     // its value in a shuffle
    std::vector<Copy> copies;
    std::vector<std::vector<Copy>> closed;  // groups
    Fiber fiber;
};

struct Range {
    uintptr_t from, to;
    bool contains(uintptr_t at, size_t size) const { return at >= from && at + size <= to; }
};

struct Block {
    uint3 index, size, grid;
    Body body;
    void** arguments;
    Range shared;
    std::vector<Thread> threads;
    Thread* running = nullptr;
    Fiber scheduler;
    uint64_t launch = 0, number = 0;
    uint64_t epoch = 0;  // grows at every barrier of the block: what lies in different epochs is ordered
};

const Block& current_block();

// Hooks of the checked build; they do nothing in the plain one.
void check_copy(const float* to, const float* from, void* instruction);  // begins; nothing is read where `from` is null
void check_landing(const float* to, void* instruction);
void check_atomic(const void* at);  // of four bytes

}  // namespace emulator
