//! The binary's allocator: jemalloc, set up to give memory back.
//!
//! A push server's memory comes and goes with its slow consumers. What is free goes back to the system within seconds, by
//! a thread of the allocator's own that holds no lock meanwhile.
//!
//! - `background_thread`: that thread. Without it pages go back only when a thread allocates, and an idle server does not.
//! - `dirty_decay_ms`, `muzzy_decay_ms`: how long a free page is kept for whoever wants one next, and that it is not kept
//!   any longer in a form that the system could take if it were short of memory.
//! - `slab_sizes`: small blocks are cut out of pieces of 32 KiB. Each piece costs 128 bytes of bookkeeping, which are never
//!   given back; out of pages, as they are by default, 150,000 pieces would stand behind 600 MB of messages.
//! - `tcache_nslots_small_max`, `tcache_max`: each thread keeps at most 50 free blocks of a size for itself, and none above
//!   4 KiB. What it keeps goes back only when it allocates again: of 64 idle reactors that would be megabytes for good.
//!
//! `_RJEM_MALLOC_CONF` in the environment overrides each of them: `man 3 jemalloc`, section TUNING.

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// The settings, where jemalloc looks for them: a pointer to a C string.
// SAFETY: jemalloc reads the symbol of this name as a `const char *`, once. It is one, and ends in a zero.
#[allow(unsafe_code)]
#[unsafe(export_name = "_rjem_malloc_conf")]
pub static SETTINGS: Option<&'static std::ffi::c_char> = {
    const TEXT: &std::ffi::CStr = c"background_thread:true,dirty_decay_ms:1000,muzzy_decay_ms:0,\
        slab_sizes:161-4096:8|4097-14336:8,tcache_nslots_small_max:50,tcache_max:4096";
    // SAFETY: the pointer of a C string in static memory points to its first character.
    Some(unsafe { &*TEXT.as_ptr() })
};
