// Working memory of one call. One block is kept from call to call, so that its pages are not given back and faulted in
// again; a second caller at the same time gets a block of its own.
#pragma once

#include <atomic>
#include <cstdint>
#include <cstdlib>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace daukit {

class Scratch {
public:
    explicit Scratch(int64_t floats) {
        size_t bytes = (size_t(floats) * 4 + kPage) / kPage * kPage;
        block_ = kept().exchange(nullptr);
        if (block_ && block_->bytes >= bytes) return;
        release(block_);
        block_ = allocate(bytes);
    }
    ~Scratch() {
        if (block_ && block_->bytes <= kKeptBytes) block_ = kept().exchange(block_);
        release(block_);
    }
    Scratch(const Scratch&) = delete;
    Scratch& operator=(const Scratch&) = delete;

    // Null when memory ran out.
    float* data() { return block_ ? block_->data : nullptr; }

private:
    static constexpr size_t kPage = size_t(2) << 20;
    static constexpr size_t kKeptBytes = size_t(64) << 20;  // larger blocks are freed at once
    struct Block {
        size_t bytes;
        float* data;
    };

    static std::atomic<Block*>& kept() {
        static std::atomic<Block*> block{nullptr};
        return block;
    }
    static Block* allocate(size_t bytes) {
        void* data = std::aligned_alloc(kPage, bytes);
        if (!data) return nullptr;
#if defined(__linux__)
        madvise(data, bytes, MADV_HUGEPAGE);
#endif
        Block* block = static_cast<Block*>(std::malloc(sizeof(Block)));
        if (!block) {
            std::free(data);
            return nullptr;
        }
        *block = {bytes, static_cast<float*>(data)};
        return block;
    }
    static void release(Block* block) {
        if (!block) return;
        std::free(block->data);
        std::free(block);
    }

    Block* block_;
};

// Hands out parts of a block, each aligned to a cache line. A first run without memory adds up what is needed.
class Carver {
public:
    explicit Carver(float* memory = nullptr) : memory_(memory) {}
    float* take(int64_t floats) {
        int64_t at = used_;
        used_ += (floats + 15) / 16 * 16;
        return memory_ ? memory_ + at : nullptr;
    }
    int64_t used() const { return used_; }

private:
    float* memory_;
    int64_t used_ = 0;
};

}  // namespace daukit
