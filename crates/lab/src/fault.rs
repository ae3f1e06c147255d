//! When something goes wrong in a service that the lab stands for. How it goes wrong each service says itself.

/// What goes wrong with the next requests of a kind.
pub struct Fault<K> {
    method: &'static str,
    path_ends: &'static str,
    /// So many requests go well before.
    after: usize,
    times: usize,
    kind: K,
}

impl<K> Fault<K> {
    /// The next request of that method whose path ends so.
    pub fn once(method: &'static str, path_ends: &'static str, kind: K) -> Self {
        Self::times(1, method, path_ends, kind)
    }

    pub fn times(times: usize, method: &'static str, path_ends: &'static str, kind: K) -> Self {
        Self::after(0, times, method, path_ends, kind)
    }

    /// As [`Fault::times`], once so many such requests have gone well.
    pub fn after(
        after: usize,
        times: usize,
        method: &'static str,
        path_ends: &'static str,
        kind: K,
    ) -> Self {
        Self {
            method,
            path_ends,
            after,
            times,
            kind,
        }
    }
}

/// The fault that befalls this request; it is used up.
pub(crate) fn befalls<K: Clone>(faults: &mut [Fault<K>], method: &str, path: &str) -> Option<K> {
    let fault = faults.iter_mut().find(|fault| {
        fault.times > 0 && fault.method == method && path.ends_with(fault.path_ends)
    })?;
    if fault.after > 0 {
        fault.after -= 1;
        return None;
    }
    fault.times -= 1;
    Some(fault.kind.clone())
}
