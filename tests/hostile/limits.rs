//! How much memory a piece of work takes at most, and on how much stack.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::thread;

/// Counts, for each thread, what is allocated and not freed.
struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Nobody gets more than this on one thread: the run ends there, before the machine's memory does.
const ALL: usize = 1 << 30;

thread_local! {
    static HELD: Cell<usize> = const { Cell::new(0) };
    static PEAK: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: every call goes to the system's allocator unchanged, or is refused; beside it only numbers are kept.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let held = HELD.get().saturating_add(layout.size());
        if held > ALL {
            return std::ptr::null_mut();
        }
        HELD.set(held);
        PEAK.set(PEAK.get().max(held));
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        HELD.set(HELD.get().saturating_sub(layout.size()));
        // SAFETY: as above.
        unsafe { System.dealloc(block, layout) }
    }
}

/// The stack of the main thread, where the program does all this, on a usual machine.
const STACK: usize = 8 << 20;

/// Does `work` on a thread of its own with a usual stack, and fails if it held more than so many megabytes at any moment.
pub fn bounded<T: Send>(megabytes: usize, work: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        let worker = thread::Builder::new().stack_size(STACK).spawn_scoped(scope, || {
            HELD.set(0);
            PEAK.set(0);
            let done = work();
            let peak = PEAK.get() >> 20;
            assert!(peak < megabytes, "{peak} MiB were held at once");
            done
        });
        worker.unwrap().join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

#[test]
#[should_panic(expected = "8 MiB were held at once")]
fn the_bound_is_kept() {
    bounded(4, || drop(vec![0_u8; 8 << 20]));
}
