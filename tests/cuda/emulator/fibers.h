// Stacks of their own for the threads of a block: a switch by hand on x86-64, ucontext elsewhere (or with
// -DEMULATOR_UCONTEXT), which makes a system call a switch.
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#if !defined(__x86_64__) && !defined(EMULATOR_UCONTEXT)
#define EMULATOR_UCONTEXT
#endif
#ifdef EMULATOR_UCONTEXT
#include <ucontext.h>
#endif

namespace emulator {

constexpr size_t STACK_BYTES = 64 << 10;

class Fiber {
public:
    Fiber() = default;
    Fiber(const Fiber&) = delete;
    ~Fiber() { std::free(stack_); }

    // Begin anew: the next switch to this fiber calls `entry`, which must not return.
    void reset(void (*entry)());
    void switch_to(Fiber& other);
    bool owns(const void* address) const {
        const auto at = (uintptr_t)address, from = (uintptr_t)stack_;
        return stack_ && at >= from && at < from + STACK_BYTES;
    }

private:
    char* stack_ = nullptr;
#ifdef EMULATOR_UCONTEXT
    ucontext_t context_;
#else
    void* top_ = nullptr;
#endif
};

#ifdef EMULATOR_UCONTEXT

inline void Fiber::reset(void (*entry)()) {
    if (!stack_) stack_ = (char*)std::aligned_alloc(64, STACK_BYTES);
    getcontext(&context_);
    context_.uc_stack.ss_sp = stack_;
    context_.uc_stack.ss_size = STACK_BYTES;
    context_.uc_link = nullptr;
    makecontext(&context_, entry, 0);
}

inline void Fiber::switch_to(Fiber& other) { swapcontext(&context_, &other.context_); }

#else

// Saves the registers that a call must keep, changes stacks, and returns into the other fiber's own call.
extern "C" void emulator_switch(void** from, void* to);
__asm__(
    ".text\n.type emulator_switch,@function\nemulator_switch:\n"
    "  pushq %rbp\n  pushq %rbx\n  pushq %r12\n  pushq %r13\n  pushq %r14\n  pushq %r15\n"
    "  movq %rsp,(%rdi)\n  movq %rsi,%rsp\n"
    "  popq %r15\n  popq %r14\n  popq %r13\n  popq %r12\n  popq %rbx\n  popq %rbp\n  ret\n");

inline void Fiber::reset(void (*entry)()) {
    if (!stack_) stack_ = (char*)std::aligned_alloc(64, STACK_BYTES);
    void** top = (void**)(stack_ + STACK_BYTES);
    *--top = nullptr;       // entry's own return address, which it never uses
    *--top = (void*)entry;  // where the first switch returns to
    top_ = top - 6;         // six registers, whatever they hold
}

inline void Fiber::switch_to(Fiber& other) { emulator_switch(&top_, other.top_); }

#endif

}  // namespace emulator
