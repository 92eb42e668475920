//! Panics that the project contains: those of the database library, which the store catches, and those of an engine in
//! what only a process of its own, or an instance that is made anew, would do.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

thread_local! {
    static FORGIVEN: Cell<Option<&'static str>> = const { Cell::new(None) };
}

/// Does the work; panics that begin in a file of the crate `of` are none of the fuzzer's, whoever catches them. One that
/// nobody has caught inside is `None`. Every other panic is a find, and ends the process.
pub fn forgiving<T>(of: &'static str, work: impl FnOnce() -> T) -> Option<T> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let finds = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            let forgiven = FORGIVEN.try_with(Cell::get).ok().flatten();
            let of = forgiven.zip(panic.location()).is_some_and(|(of, at)| at.file().contains(of));
            if !of {
                finds(panic);
            }
        }));
    });
    let before = FORGIVEN.replace(Some(of));
    let done = catch_unwind(AssertUnwindSafe(work)).ok();
    FORGIVEN.set(before);
    done
}
