//! Who waits for runs: each has a process of the service's until then, whose memory the host has to bear.

use std::{cell::RefCell, collections::HashMap, rc::Rc};

use crate::store::Whose;

/// What such a process takes, some 0.6 MiB, rounded up.
const BYTES_OF_ONE: u64 = 1 << 20;
/// All users' together may take that part of the host's memory.
const PART_OF_THE_HOST: u64 = 16;
/// But so many may wait on any host.
const AT_LEAST: usize = 32;
/// And no more on any.
const AT_MOST: usize = 2048;

/// Those that wait, by user. Root may wait for as many as it likes.
#[derive(Clone, Debug)]
pub(super) struct Waiters {
    by_user: Rc<RefCell<HashMap<u32, usize>>>,
    most: usize,
}

/// One that waits. Dropped, it counts no more.
#[derive(Debug)]
pub(super) struct Waiter {
    by_user: Rc<RefCell<HashMap<u32, usize>>>,
    uid: u32,
}

impl Waiters {
    /// Nobody, on a host with so much memory.
    pub(super) fn on(memory_bytes: u64) -> Self {
        let most = memory_bytes / PART_OF_THE_HOST / BYTES_OF_ONE;
        Self {
            by_user: Rc::default(),
            most: usize::try_from(most)
                .unwrap_or(AT_MOST)
                .clamp(AT_LEAST, AT_MOST),
        }
    }

    /// Lets one more wait; `None` for root, who is not counted.
    ///
    /// # Errors
    /// Where its user has half of all places, or all are taken: what is to be said.
    pub(super) fn admit(&self, whose: Whose) -> Result<Option<Waiter>, String> {
        let Whose::Of(uid) = whose else {
            return Ok(None);
        };
        let mut by_user = self.by_user.borrow_mut();
        let all: usize = by_user.values().sum();
        let own = by_user.get(&uid).copied().unwrap_or_default();
        if own >= self.most / 2 || all >= self.most {
            return Err(format!(
                "too many wait already, you for {own} runs, all users for {all}: on this host one user may for {}, all for {}; `sandbox list` does not wait",
                self.most / 2,
                self.most
            ));
        }
        by_user.insert(uid, own + 1);
        Ok(Some(Waiter {
            by_user: Rc::clone(&self.by_user),
            uid,
        }))
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        let mut by_user = self.by_user.borrow_mut();
        if let Some(own) = by_user.get_mut(&self.uid) {
            *own -= 1;
            if *own == 0 {
                by_user.remove(&self.uid);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_has_half_of_the_places_that_a_host_has_and_root_any_number() {
        let small = Waiters::on(512 << 20);
        let half = |uid| -> Vec<_> {
            let admitted = std::iter::from_fn(|| small.admit(Whose::Of(uid)).ok());
            admitted.collect()
        };
        let ana = half(1000);
        assert_eq!(ana.len(), 16);
        let bob = half(1001);
        assert_eq!((bob.len(), half(1002).len()), (16, 0));
        assert!(small.admit(Whose::All).is_ok_and(|root| root.is_none()));
        drop(ana);
        assert_eq!(half(1002).len(), 16);
        assert_eq!(half(1000).len(), 16);
        assert_eq!(half(1001).len(), 0);
        drop(bob);
        assert!(small.by_user.borrow().is_empty());
        for (gib, most) in [(8, 512), (64, 2048)] {
            assert_eq!(Waiters::on(gib << 30).most, most);
        }
    }
}
