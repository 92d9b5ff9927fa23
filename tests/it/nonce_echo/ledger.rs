//! What the origins did, by nonce.

use std::collections::HashMap;
use std::fmt;
use std::sync::Mutex;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

/// How often each request was begun and executed, all origins together.
#[derive(Default)]
pub struct Ledger {
    begun: AtomicU64,
    /// Nonce → how often an origin had such a request whole; the nonce's last bits choose the shard.
    executed: [Mutex<HashMap<u64, Count>>; 16],
    wrong: Mutex<Vec<String>>,
}

#[derive(Default)]
struct Count {
    times: u32,
    unsafe_method: bool,
}

/// Ten digits a nonce; contents are made of them, so that each octet tells whose it is.
pub fn pattern(nonce: u64, size: usize) -> Vec<u8> {
    let mut octets = format!("{nonce:010}").into_bytes().repeat(size / 10 + 1);
    octets.truncate(size);
    octets
}

impl Ledger {
    /// An origin has read the head of a request.
    pub fn begins(&self) {
        self.begun.fetch_add(1, Ordering::Relaxed);
    }

    pub fn begun(&self) -> f64 {
        self.begun.load(Ordering::Relaxed) as f64
    }

    /// An origin has read this request whole.
    pub fn executes(&self, nonce: u64, method: &str, content: &[u8]) {
        if content != pattern(nonce, content.len()) {
            let shown = content[..content.len().min(40)].escape_ascii();
            let what = format!("{method} {nonce} came with the content of another: {shown}");
            self.wrong.lock().unwrap().push(what);
        }
        let mut shard = self.executed[nonce as usize % 16].lock().unwrap();
        let count = shard.entry(nonce).or_default();
        count.times += 1;
        count.unsafe_method = method == "POST";
    }

    /// No request had another's content, no POST came twice, nothing came more often than it may be tried.
    pub fn is_clean(&self) {
        let wrong = self.wrong.lock().unwrap();
        assert!(wrong.is_empty(), "{wrong:#?}");
        for shard in &self.executed {
            for (nonce, count) in shard.lock().unwrap().iter() {
                let most = if count.unsafe_method { 1 } else { 2 };
                assert!(
                    count.times <= most,
                    "{nonce} was executed {} times",
                    count.times
                );
            }
        }
    }
}

impl fmt::Display for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mut once, mut posts, mut again) = (0, 0, 0);
        for shard in &self.executed {
            for count in shard.lock().unwrap().values() {
                once += 1;
                posts += u64::from(count.unsafe_method);
                again += u64::from(count.times - 1);
            }
        }
        write!(
            f,
            "at the origins {} begun, {once} executed ({posts} of them POSTs), {again} executed again",
            self.begun()
        )
    }
}
