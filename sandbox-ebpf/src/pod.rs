//! aya's own marker for what may cross into a map. It lives here since the orphan rule keeps it
//! from standing beside the loader.
#![allow(
    unsafe_code,
    reason = "each type is `bytemuck::Pod`, whose derive has checked what `aya::Pod` asks for"
)]

use crate::{Facts, Fugitive, Intent, Kill, Main, Offsets, ProcessKey, VictimKey};

macro_rules! pod {
    ($($record:ty),*) => {
        // SAFETY: plain old data without padding, asserted by `bytemuck::Pod`.
        $(unsafe impl aya::Pod for $record where $record: bytemuck::Pod {})*
    };
}

pod!(
    Facts, Fugitive, Intent, Kill, Main, Offsets, ProcessKey, VictimKey
);
