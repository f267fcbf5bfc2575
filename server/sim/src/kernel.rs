//! The two things a process asks of the kernel that differ from run to run: random bytes and the time. On a simulation's
//! thread both are answered here, so that whatever builds on them is the same each time: `select!`'s choices, HashMap's keys,
//! UUIDs, election timeouts, `Instant`. Other threads are answered by the kernel.
//!
//! These are the C library's own symbols: what a binary defines itself, its libraries use too.

use std::cell::Cell;
use std::time::Duration;

use libc::{c_int, c_uint, c_void, clockid_t, size_t, ssize_t, timespec};

thread_local! {
    /// Where this thread's random bytes come from.
    static RANDOM: Cell<Option<u64>> = const { Cell::new(None) };
    /// What time it is here.
    static NOW: Cell<Option<Duration>> = const { Cell::new(None) };
}

/// When simulations begin, since 1970: the first day of 2026. The monotonic clock begins there as well.
pub(crate) const EPOCH: Duration = Duration::from_secs(1_767_225_600);

/// Makes the calling thread one of a simulation, until it ends.
pub(crate) fn simulate(seed: u64) {
    RANDOM.set(Some(seed));
    set_elapsed(Duration::ZERO);
}

/// Sets how long the simulation has been running.
pub(crate) fn set_elapsed(elapsed: Duration) {
    NOW.set(Some(EPOCH + elapsed));
}

/// The next eight bytes (SplitMix64: Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014).
fn next(state: u64) -> (u64, u64) {
    let state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (state, mixed ^ (mixed >> 31))
}

/// getrandom(2).
///
/// # Safety
/// `buffer` has room for `length` bytes, as the C library demands.
#[allow(unsafe_code)]
#[unsafe(no_mangle)]
unsafe extern "C" fn getrandom(buffer: *mut c_void, length: size_t, flags: c_uint) -> ssize_t {
    let Some(mut state) = RANDOM.get() else {
        // SAFETY: the kernel gets what the caller gave.
        return unsafe { libc::syscall(libc::SYS_getrandom, buffer, length, flags) as ssize_t };
    };
    // SAFETY: the caller gave a buffer of this length.
    let buffer = unsafe { std::slice::from_raw_parts_mut(buffer.cast::<u8>(), length) };
    for piece in buffer.chunks_mut(8) {
        let random;
        (state, random) = next(state);
        piece.copy_from_slice(&random.to_le_bytes()[..piece.len()]);
    }
    RANDOM.set(Some(state));
    length.cast_signed()
}

/// clock_gettime(2). The clocks of processors stay real.
///
/// # Safety
/// `at` has room for a time, as the C library demands.
#[allow(unsafe_code)]
#[unsafe(no_mangle)]
unsafe extern "C" fn clock_gettime(clock: clockid_t, at: *mut timespec) -> c_int {
    let is_simulated = !matches!(clock, libc::CLOCK_PROCESS_CPUTIME_ID | libc::CLOCK_THREAD_CPUTIME_ID);
    match NOW.get().filter(|_| is_simulated) {
        // SAFETY: the kernel gets what the caller gave.
        None => unsafe { libc::syscall(libc::SYS_clock_gettime, clock, at) as c_int },
        Some(now) => {
            let now = timespec { tv_sec: now.as_secs().cast_signed(), tv_nsec: now.subsec_nanos().into() };
            // SAFETY: the caller gave a place for a time.
            unsafe { at.write(now) };
            0
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::thread;
    use std::time::{Instant, SystemTime};

    use super::*;

    fn order_and_time(seed: u64) -> (Vec<u32>, SystemTime, Duration, u64) {
        let simulated = thread::spawn(move || {
            simulate(seed);
            let began = Instant::now();
            set_elapsed(Duration::from_secs(7));
            let order = (0..100).collect::<HashSet<u32>>().into_iter().collect();
            (order, SystemTime::now(), began.elapsed(), rand::random())
        });
        simulated.join().unwrap()
    }

    #[test]
    fn a_seed_decides_random_bytes_and_the_time() {
        let (order, now, took, random) = order_and_time(1);
        assert_eq!(order_and_time(1), (order.clone(), now, took, random));
        assert_eq!(took, Duration::from_secs(7));
        assert_eq!(now, SystemTime::UNIX_EPOCH + EPOCH + Duration::from_secs(7));
        assert_ne!(order_and_time(2).0, order);
    }

    #[test]
    fn other_threads_have_the_real_ones() {
        simulate(1);
        let real = thread::spawn(|| (SystemTime::now(), rand::random::<u64>()));
        let (now, random) = real.join().unwrap();
        assert_ne!(now, SystemTime::UNIX_EPOCH + EPOCH);
        assert_ne!(random, thread::spawn(rand::random::<u64>).join().unwrap());
    }
}
