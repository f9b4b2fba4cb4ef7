//! The bytes of columns that grow side by side.
//!
//! A run has many columns, each of which grows by some bytes at a time. In a vector each they would be moved again and again, and
//! when the run is sealed they would leave holes of all sizes between those of other runs. So a column's bytes are chunks of the run
//! that it is of, each of which says where the next one lies; only what most columns never go beyond lies in the column itself.

use std::borrow::Cow;

use crate::store::bytes::{Few, Put};

use super::pen::Grow;

/// Bytes that lie in the column itself: most series change rarely, and never need more.
const OWN_BYTES: usize = 12;

/// Of a chunk, beside those that say which is next.
const CHUNK_BYTES: usize = 28;
const NEXT_BYTES: usize = size_of::<u32>();

/// Chunks of the first page; each further one has twice as many until [`PAGE_CHUNKS`]. Most groups are small.
const FIRST_CHUNKS: usize = 4;
const PAGE_CHUNKS: usize = 32;

/// Pages before those of full size, and chunks in them.
const SMALL_PAGES: usize = (PAGE_CHUNKS / FIRST_CHUNKS).ilog2() as usize;
const SMALL_CHUNKS: usize = PAGE_CHUNKS - FIRST_CHUNKS;

/// Bytes of a column, and the number of the chunk that has the next ones. Before there is one, that is of no meaning.
#[derive(Debug, Clone, Copy)]
struct Chunk([u8; CHUNK_BYTES + NEXT_BYTES]);

impl Chunk {
    fn bytes(&self) -> &[u8] {
        &self.0[..CHUNK_BYTES]
    }

    fn next(&self) -> u32 {
        self.0.last_chunk().map_or(0, |next| u32::from_le_bytes(*next))
    }

    fn set_next(&mut self, next: u32) {
        self.0[CHUNK_BYTES..].copy_from_slice(&next.to_le_bytes());
    }

    /// Puts a word behind the first `used` bytes, or what there is room for. All behind it loses its meaning.
    #[inline]
    fn put_word(&mut self, used: usize, word: u64) {
        if let Some(room) = self.0[used..].first_chunk_mut() {
            *room = word.to_le_bytes();
        } else if let Some(room) = self.0.last_chunk_mut() {
            let kept = 8 * (used - (CHUNK_BYTES + NEXT_BYTES - size_of::<u64>()));
            let before = u64::from_le_bytes(*room) & ((1 << kept) - 1);
            *room = (before | word << kept).to_le_bytes();
        }
    }
}

/// The chunks of all columns of a run.
#[derive(Debug, Default)]
pub struct Chunks {
    pages: Vec<Box<[Chunk]>>,
    used: u32,
    /// How many the pages have.
    room: u32,
}

/// The bytes of one column.
#[derive(Debug, Default)]
pub struct Chain {
    length: u32,
    /// Its chunks; of no meaning before it has any.
    first: u32,
    last: u32,
    own: [u8; OWN_BYTES],
}

/// A chain that is written.
#[derive(Debug)]
pub struct Link<'a> {
    pub chain: &'a mut Chain,
    pub chunks: &'a mut Chunks,
}

/// The page of a chunk, and its place there.
#[inline]
fn place(chunk: u32) -> (usize, usize) {
    let chunk = chunk as usize;
    if chunk >= SMALL_CHUNKS {
        let beyond = chunk - SMALL_CHUNKS;
        return (SMALL_PAGES + beyond / PAGE_CHUNKS, beyond % PAGE_CHUNKS);
    }
    let page = (chunk / FIRST_CHUNKS + 1).ilog2() as usize;
    (page, chunk - FIRST_CHUNKS * ((1 << page) - 1))
}

impl Chunks {
    pub fn bytes(&self) -> usize {
        self.room as usize * size_of::<Chunk>() + self.pages.capacity() * size_of::<Box<[Chunk]>>()
    }

    fn add(&mut self) -> u32 {
        if self.used == self.room {
            let chunks = (FIRST_CHUNKS << self.pages.len().min(SMALL_PAGES)).min(PAGE_CHUNKS);
            self.pages.push(vec![Chunk([0; CHUNK_BYTES + NEXT_BYTES]); chunks].into());
            self.room += chunks as u32;
        }
        self.used += 1;
        self.used - 1
    }

    #[inline]
    fn at(&self, chunk: u32) -> &Chunk {
        let (page, at) = place(chunk);
        &self.pages[page][at]
    }

    #[inline]
    fn at_mut(&mut self, chunk: u32) -> &mut Chunk {
        let (page, at) = place(chunk);
        &mut self.pages[page][at]
    }

    /// All bytes of a chain.
    pub fn read<'a>(&self, chain: &'a Chain) -> Cow<'a, [u8]> {
        if chain.len() <= OWN_BYTES {
            return Cow::Borrowed(&chain.own[..chain.len()]);
        }
        let mut out = Vec::with_capacity(chain.len());
        self.read_from(chain, 0, 0, &mut out);
        Cow::Owned(out)
    }

    /// Adds what lies behind the first `at` bytes of a chain, the last of which lies in the chunk `place`.
    pub fn read_from(&self, chain: &Chain, at: usize, place: u32, out: &mut Vec<u8>) {
        let length = chain.len();
        let own = &chain.own[..length.min(OWN_BYTES)];
        match at.checked_sub(OWN_BYTES) {
            None | Some(0) => {
                out.extend_from_slice(own.get(at..).unwrap_or_default());
                self.add_chunks(chain.first, 0, length - own.len(), out);
            }
            _ if at >= length => {}
            Some(behind) => match behind % CHUNK_BYTES {
                0 => self.add_chunks(self.at(place).next(), 0, length - at, out),
                begin => self.add_chunks(place, begin, length - at, out),
            },
        }
    }

    /// Adds so many bytes of a chunk, from `begin` on, and of those behind it.
    fn add_chunks(&self, mut chunk: u32, mut begin: usize, mut count: usize, out: &mut Vec<u8>) {
        while count > 0 {
            let there = self.at(chunk);
            let some = &there.bytes()[begin..CHUNK_BYTES.min(begin + count)];
            out.extend_from_slice(some);
            (chunk, begin, count) = (there.next(), 0, count - some.len());
        }
    }
}

impl Chain {
    pub fn len(&self) -> usize {
        self.length as usize
    }

    pub fn is_empty(&self) -> bool {
        self.length == 0
    }
}

impl Put for Link<'_> {
    fn put(&mut self, bytes: &[u8]) {
        let room = self.room();
        let fits = bytes.len().min(room.len());
        room[..fits].copy_from_slice(&bytes[..fits]);
        self.chain.length += fits as u32;
        for some in bytes[fits..].chunks(CHUNK_BYTES) {
            self.next_chunk().0[..some.len()].copy_from_slice(some);
            self.chain.length += some.len() as u32;
        }
    }

    /// Most points are short, and a word is written sooner than their number of bytes, also where it ends in a new chunk.
    #[inline]
    fn put_few(&mut self, few: &Few) {
        let last = self.chain.len().checked_sub(OWN_BYTES + 1).filter(|_| few.len() <= size_of::<u64>());
        let Some(last) = last else { return self.put(&few.all()[..few.len()]) };
        let used = last % CHUNK_BYTES + 1;
        let word = u64::from_le_bytes(few.word());
        self.chunks.at_mut(self.chain.last).put_word(used, word);
        let fits = CHUNK_BYTES - used;
        if few.len() > fits {
            self.next_chunk().put_word(0, word >> (8 * fits));
        }
        self.chain.length += few.len() as u32;
    }
}

impl Link<'_> {
    /// What is free of the last chunk, or of what lies in the column itself.
    fn room(&mut self) -> &mut [u8] {
        let length = self.chain.len();
        match length.checked_sub(OWN_BYTES) {
            None => &mut self.chain.own[length..],
            Some(behind) => match behind % CHUNK_BYTES {
                0 => &mut [],
                used => &mut self.chunks.at_mut(self.chain.last).0[used..CHUNK_BYTES],
            },
        }
    }

    /// A new chunk behind the last one.
    fn next_chunk(&mut self) -> &mut Chunk {
        let chunk = self.chunks.add();
        match self.chain.len() > OWN_BYTES {
            true => self.chunks.at_mut(self.chain.last).set_next(chunk),
            false => self.chain.first = chunk,
        }
        self.chain.last = chunk;
        self.chunks.at_mut(chunk)
    }
}

impl Grow for Link<'_> {
    fn length(&self) -> usize {
        self.chain.len()
    }

    fn place(&self) -> u32 {
        self.chain.last
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A chain, what was put into it, and where it ended at some times.
    #[derive(Debug, Default)]
    struct Written {
        chain: Chain,
        wanted: Vec<u8>,
        marks: Vec<(usize, u32)>,
    }

    proptest! {
        #[test]
        fn chains_are_what_was_put_into_them(
            puts in prop::collection::vec((0usize..6, prop::collection::vec(any::<u8>(), 0..90), any::<bool>(), any::<bool>()), 0..200),
        ) {
            let mut chunks = Chunks::default();
            let mut chains: [Written; 6] = Default::default();
            for (at, bytes, few, mark) in puts {
                let Written { chain, wanted, marks } = &mut chains[at];
                let mut link = Link { chain, chunks: &mut chunks };
                match few {
                    true => {
                        let mut few = Few::default();
                        few.put(&bytes[..bytes.len().min(16)]);
                        wanted.extend(&few.all()[..few.len()]);
                        link.put_few(&few);
                    }
                    false => {
                        link.put(&bytes);
                        wanted.extend(&bytes);
                    }
                }
                prop_assert_eq!(link.length(), wanted.len());
                if mark {
                    marks.push((link.length(), link.place()));
                }
            }
            for Written { chain, wanted, marks } in &chains {
                prop_assert_eq!(&*chunks.read(chain), &**wanted);
                for (at, place) in marks {
                    let mut rest = vec![7];
                    chunks.read_from(chain, *at, *place, &mut rest);
                    prop_assert_eq!(&rest[1..], &wanted[*at..]);
                }
            }
        }
    }

    #[test]
    fn every_chunk_has_a_place_of_its_own() {
        let mut chunks = Chunks::default();
        let places: std::collections::BTreeSet<_> = (0..1000).map(|_| place(chunks.add())).collect();
        assert_eq!(places.len(), 1000);
        assert!(places.iter().all(|(page, at)| *at < chunks.pages[*page].len()));
        assert_eq!(chunks.pages.iter().map(|page| page.len() as u32).sum::<u32>(), chunks.room);
        assert!(chunks.room - 1000 < PAGE_CHUNKS as u32);
        assert_eq!((size_of::<Chunk>(), size_of::<Chain>()), (32, 24));
    }
}
