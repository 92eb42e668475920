//! How much memory a piece of work has at one time, as its own thread asks for it.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// Counts, and hands on to the system's allocator.
struct Counting;

thread_local! {
    static NOW: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

fn more(bytes: usize) {
    // A thread that ends frees what it kept after its cells are gone.
    let _ = NOW.try_with(|now| {
        now.set(now.get() + bytes as isize);
        let _ = PEAK.try_with(|peak| peak.set(peak.get().max(now.get())));
    });
}

fn less(bytes: usize) {
    let _ = NOW.try_with(|now| now.set(now.get() - bytes as isize));
}

// SAFETY: hands every call on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        more(layout.size());
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        more(layout.size());
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        less(layout.size());
        unsafe { System.dealloc(ptr, layout) }
    }

    // A vector that grows has the old and the new piece at one time.
    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        more(size);
        less(layout.size());
        unsafe { System.realloc(ptr, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Does the work, and says how many bytes it had at one time beyond those there were before.
pub fn counted<T>(work: impl FnOnce() -> T) -> (T, usize) {
    let (start, before) = (NOW.get(), PEAK.get());
    PEAK.set(start);
    let done = work();
    let used = usize::try_from(PEAK.get() - start).unwrap_or(0);
    PEAK.set(before.max(PEAK.get()));
    (done, used)
}

/// Does work that another process would do: what it has on the way is not counted, what it leaves behind is.
pub fn elsewhere<T>(work: impl FnOnce() -> T) -> T {
    let before = PEAK.get();
    let done = work();
    PEAK.set(before.max(NOW.get()));
    done
}

/// What decoders and guards may have for so many bytes of input.
pub fn reads<T>(what: &str, input: usize, work: impl FnOnce() -> T) -> T {
    within(what, input, 4 * input + (64 << 10), work)
}

/// What may be had for applying so many bytes that a guard has passed.
pub fn applies<T>(what: &str, input: usize, work: impl FnOnce() -> T) -> T {
    within(what, input, 256 * input + (1 << 20), work)
}

fn within<T>(what: &str, input: usize, most: usize, work: impl FnOnce() -> T) -> T {
    let (done, used) = counted(work);
    assert!(used <= most, "{what}: {used} bytes at one time for {input} bytes of input, {most} are allowed");
    done
}
