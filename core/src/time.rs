//! Time as the driver gives it. The core has no clock: every machine is told what time it is with every input, and says by
//! its deadline when it wants to be woken. Nothing is ordered, merged or admitted by time (`SEMANTICS` S23).

use std::ops::Add;

/// A moment on the driver's clock: milliseconds since a start of its own choosing. It never goes back.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct Time(pub u64);

/// A length of time.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct Millis(pub u64);

impl Add<Millis> for Time {
    type Output = Time;

    fn add(self, length: Millis) -> Time {
        Time(self.0.saturating_add(length.0))
    }
}

impl Time {
    /// How long ago `earlier` was; nothing if it is still to come.
    pub fn since(self, earlier: Time) -> Millis {
        Millis(self.0.saturating_sub(earlier.0))
    }
}
