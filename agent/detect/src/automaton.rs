//! Many literals in one pass over a text, without regard to ASCII case: Aho and Corasick, "Efficient string matching" (1975).
//!
//! All states lie in one vector of words, a state being named by where it starts:
//!
//! | Word | Holds |
//! |---|---|
//! | 0 | number of edges in the lowest byte, or `DENSE`; the class of the only edge in the next; number of literals that end here above |
//! | 1 | the state to try when there is no edge |
//! | then | dense: a state per class. Two edges and more: their classes, four a word, then their states. One edge: its state |
//! | then | the literals that end here |
//!
//! States near the root are dense: there most steps are taken. Bytes of no literal are one class, which leads to the root.

/// The number of edges of a state that has one per class.
const DENSE: u32 = 0xff;
/// More edges than this, and a state is dense.
const MOST_EDGES: usize = 16;
/// States of less depth are dense.
const DENSE_DEPTH: u32 = 2;
const ROOT: u32 = 0;
/// No node.
const NONE: u32 = u32::MAX;
/// Most bytes of all literals together, so that no state lies beyond what 32 bits can name.
const MOST_BYTES: usize = 1 << 22;

/// Literals to look for.
#[derive(Debug)]
pub(crate) struct Automaton {
    /// By byte; class 0 is in no literal. Upper and lower case are one class.
    classes: [u8; 256],
    /// How many classes there are.
    width: usize,
    // Boxes, not vectors: their elements are reached without a call, which a build for size does not inline.
    states: Box<[u32]>,
    /// By literal.
    lengths: Box<[u32]>,
}

/// A state while the automaton is built.
struct Node {
    class: u8,
    depth: u32,
    child: u32,
    sibling: u32,
    failure: u32,
    /// The literal that ends here.
    literal: u32,
    /// How many literals end here, those that are ends of others among them.
    ending: u16,
    /// The number of edges, or [`DENSE`].
    kind: u32,
    /// Where the state starts.
    at: u32,
}

impl Node {
    fn new(class: u8, depth: u32, sibling: u32) -> Self {
        Self {
            class,
            depth,
            child: NONE,
            sibling,
            failure: ROOT,
            literal: NONE,
            ending: 0,
            kind: 0,
            at: ROOT,
        }
    }
}

impl Automaton {
    /// Literals that differ from one another, in lower case; `None` when they are too much together.
    pub(crate) fn new(literals: &[Vec<u8>]) -> Option<Self> {
        if literals.iter().map(Vec::len).sum::<usize>() > MOST_BYTES {
            return None;
        }
        let lengths = literals.iter().map(|literal| literal.len() as u32).collect();
        let (classes, width) = classes(literals);
        let mut automaton = Self { classes, width, states: Box::default(), lengths };
        let mut nodes = automaton.tree(literals);
        let order = link(&mut nodes);
        automaton.lay_out(&mut nodes, &order)?;
        Some(automaton)
    }

    /// Calls for each place where a literal stands in the text: its number, first byte and the byte behind it.
    #[inline]
    pub(crate) fn find(&self, text: &[u8], mut found: impl FnMut(usize, usize, usize)) {
        let mut state = ROOT;
        let mut end = 0;
        loop {
            // Most states end nothing.
            if self.states[state as usize] >> 16 != 0 {
                for literal in self.literals(state) {
                    let literal = *literal as usize;
                    found(literal, end - self.lengths[literal] as usize, end);
                }
            }
            let Some(byte) = text.get(end) else { return };
            state = self.next(state, self.classes[*byte as usize]);
            end += 1;
        }
    }

    /// Bytes on the heap.
    pub(crate) fn memory_usage(&self) -> usize {
        size_of_val(&*self.states) + size_of_val(&*self.lengths)
    }

    // The crate is built for size, and this is called for every byte of every text.
    #[inline(always)]
    fn next(&self, mut state: u32, class: u8) -> u32 {
        if class == 0 {
            return ROOT;
        }
        loop {
            let at = state as usize;
            let head = self.states[at];
            match head & 0xff {
                0 => {}
                1 => {
                    if (head >> 8) as u8 == class {
                        return self.states[at + 2];
                    }
                }
                DENSE => return self.states[at + 2 + class as usize],
                edges => {
                    let from = at + 2;
                    let words = edges.div_ceil(4) as usize;
                    for (number, word) in self.states[from..from + words].iter().enumerate() {
                        if let Some(place) = place_of(class, *word) {
                            return self.states[from + words + 4 * number + place];
                        }
                    }
                }
            }
            state = self.states[at + 1];
        }
    }

    /// What ends in a state.
    #[inline]
    fn literals(&self, state: u32) -> &[u32] {
        let at = state as usize;
        let head = self.states[at];
        let count = (head >> 16) as usize;
        if count == 0 {
            return &[];
        }
        let from = at + 2 + self.room(head & 0xff);
        &self.states[from..from + count]
    }

    fn tree(&self, literals: &[Vec<u8>]) -> Vec<Node> {
        let mut nodes = vec![Node::new(0, 0, NONE)];
        for (number, literal) in (0u32..).zip(literals) {
            let mut node = ROOT;
            for byte in literal {
                let class = self.classes[*byte as usize];
                node = match child(&nodes, node, class) {
                    Some(child) => child,
                    None => {
                        let new = nodes.len() as u32;
                        nodes.push(Node::new(
                            class,
                            nodes[node as usize].depth + 1,
                            nodes[node as usize].child,
                        ));
                        nodes[node as usize].child = new;
                        new
                    }
                };
            }
            nodes[node as usize].literal = number;
        }
        nodes
    }

    /// Gives each state its place, then writes them, those near the root first: what is dense answers for its failures as well.
    fn lay_out(&mut self, nodes: &mut [Node], order: &[u32]) -> Option<()> {
        let mut end = 0;
        for number in order {
            let edges = children(nodes, *number).count();
            let ending =
                if *number == ROOT { 0 } else { nodes[nodes[*number as usize].failure as usize].ending };
            let node = &mut nodes[*number as usize];
            node.at = u32::try_from(end).ok()?;
            node.ending = ending.checked_add(u16::from(node.literal != NONE))?;
            node.kind = if node.depth < DENSE_DEPTH || edges > MOST_EDGES { DENSE } else { edges as u32 };
            end += 2 + self.room(node.kind) + usize::from(node.ending);
        }
        self.states = vec![0; end].into();
        for number in order {
            self.write(nodes, *number);
        }
        Some(())
    }

    fn write(&mut self, nodes: &[Node], number: u32) {
        let node = &nodes[number as usize];
        let failure = nodes[node.failure as usize].at;
        let body = node.at as usize + 2;
        self.states[body - 2] = u32::from(node.ending) << 16 | node.kind;
        self.states[body - 1] = failure;
        if node.kind == DENSE && number != ROOT {
            for class in 1..self.width {
                self.states[body + class] = self.next(failure, class as u8);
            }
        }
        for (edge, child) in children(nodes, number).enumerate() {
            let Node { class, at: to, .. } = nodes[child as usize];
            match node.kind {
                DENSE => self.states[body + class as usize] = to,
                1 => {
                    self.states[body - 2] |= u32::from(class) << 8;
                    self.states[body] = to;
                }
                edges => {
                    self.states[body + edge / 4] |= u32::from(class) << (edge % 4 * 8);
                    self.states[body + (edges as usize).div_ceil(4) + edge] = to;
                }
            }
        }
        let mut at = body + self.room(node.kind);
        if node.literal != NONE {
            self.states[at] = node.literal;
            at += 1;
        }
        if number != ROOT {
            let ending = self.literals(failure).to_vec();
            self.states[at..at + ending.len()].copy_from_slice(&ending);
        }
    }

    /// Words of a state's edges.
    #[inline]
    fn room(&self, kind: u32) -> usize {
        match kind {
            DENSE => self.width,
            1 => 1,
            edges => edges.div_ceil(4) as usize + edges as usize,
        }
    }
}

/// Where among the four bytes of a word this one stands, which is not 0; the first such place, the lowest byte's being 0. All four are
/// looked at together: of the differences, the highest bit of the first byte that is 0 is the lowest that is set.
#[inline(always)]
fn place_of(byte: u8, word: u32) -> Option<usize> {
    const ONES: u32 = u32::MAX / 255;
    let difference = word ^ (ONES * u32::from(byte));
    let none = difference.wrapping_sub(ONES) & !difference & (ONES << 7);
    (none != 0).then(|| none.trailing_zeros() as usize / 8)
}

/// The class of each byte, and how many classes there are.
fn classes(literals: &[Vec<u8>]) -> ([u8; 256], usize) {
    let mut classes = [0; 256];
    let mut last = 0;
    for byte in literals.iter().flatten() {
        let class = &mut classes[*byte as usize];
        if *class == 0 {
            // Of 256 bytes, upper case letters are in no literal.
            last += 1;
            *class = last;
        }
    }
    for letter in b'A'..=b'Z' {
        classes[letter as usize] = classes[letter.to_ascii_lowercase() as usize];
    }
    (classes, usize::from(last) + 1)
}

fn children(nodes: &[Node], number: u32) -> impl Iterator<Item = u32> + '_ {
    let some = |child: u32| (child != NONE).then_some(child);
    std::iter::successors(some(nodes[number as usize].child), move |child| {
        some(nodes[*child as usize].sibling)
    })
}

fn child(nodes: &[Node], number: u32, class: u8) -> Option<u32> {
    children(nodes, number).find(|child| nodes[*child as usize].class == class)
}

/// Finds the failure of each node: the node of the longest proper end of its text. The answer is the nodes by depth.
fn link(nodes: &mut [Node]) -> Vec<u32> {
    let mut order = vec![ROOT];
    let mut next = 0;
    while let Some(parent) = order.get(next).copied() {
        next += 1;
        let mut edge = nodes[parent as usize].child;
        while edge != NONE {
            let class = nodes[edge as usize].class;
            let mut from = parent;
            nodes[edge as usize].failure = loop {
                if from == ROOT {
                    break ROOT;
                }
                from = nodes[from as usize].failure;
                if let Some(found) = child(nodes, from, class) {
                    break found;
                }
            };
            order.push(edge);
            edge = nodes[edge as usize].sibling;
        }
    }
    order
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all(literals: &[Vec<u8>], text: &[u8]) -> Vec<(usize, usize, usize)> {
        let mut hits = Vec::new();
        Automaton::new(literals).unwrap().find(text, |literal, start, end| hits.push((literal, start, end)));
        hits.sort_unstable();
        hits
    }

    /// The same by looking everywhere.
    fn looked_for(literals: &[Vec<u8>], text: &[u8]) -> Vec<(usize, usize, usize)> {
        let text = text.to_ascii_lowercase();
        let mut hits = Vec::new();
        for (number, literal) in literals.iter().enumerate() {
            for start in 0..=text.len().saturating_sub(literal.len()) {
                if text[start..].starts_with(literal) {
                    hits.push((number, start, start + literal.len()));
                }
            }
        }
        hits
    }

    #[test]
    fn the_example_of_the_paper() {
        let literals = [b"he".to_vec(), b"she".to_vec(), b"his".to_vec(), b"hers".to_vec()];
        assert_eq!(all(&literals, b"uSHers"), [(0, 2, 4), (1, 1, 4), (3, 2, 6)]);
    }

    #[test]
    fn no_literals_and_an_empty_one() {
        assert_eq!(all(&[], b"ab"), []);
        assert_eq!(all(&[Vec::new(), b"b".to_vec()], b"ab"), [(0, 0, 0), (0, 1, 1), (0, 2, 2), (1, 1, 2)]);
    }

    #[test]
    fn every_byte_has_its_class() {
        let literals: Vec<Vec<u8>> = (0..=255u8)
            .filter(|byte| !byte.is_ascii_uppercase())
            .map(|byte| vec![b'x', b'y', byte])
            .collect();
        for literal in &literals {
            assert_eq!(all(&literals, literal), looked_for(&literals, literal));
        }
    }

    #[test]
    fn too_much_is_refused() {
        assert!(Automaton::new(&[vec![b'a'; MOST_BYTES + 1]]).is_none());
    }

    proptest! {
        #[test]
        fn a_byte_has_the_first_place_it_stands_at(bytes in any::<[u8; 4]>(), byte in 1..=255u8, at in 0..8usize) {
            let mut bytes = bytes;
            if let Some(place) = bytes.get_mut(at) {
                *place = byte;
            }
            let expected = bytes.iter().position(|other| *other == byte);
            prop_assert_eq!(place_of(byte, u32::from_le_bytes(bytes)), expected);
        }

        #[test]
        fn finds_what_looking_everywhere_finds(
            literals in prop::collection::btree_set("[abc]{0,7}", 0..40),
            text in "[abcABCd]{0,60}",
        ) {
            let literals: Vec<Vec<u8>> = literals.into_iter().map(String::into_bytes).collect();
            prop_assert_eq!(all(&literals, text.as_bytes()), looked_for(&literals, text.as_bytes()));
        }

        #[test]
        fn finds_among_any_bytes(
            literals in prop::collection::btree_set(prop::collection::vec(any::<u8>(), 0..4), 0..60),
            text in prop::collection::vec(any::<u8>(), 0..60),
        ) {
            let literals: std::collections::BTreeSet<Vec<u8>> =
                literals.into_iter().map(|literal| literal.to_ascii_lowercase()).collect();
            let literals: Vec<Vec<u8>> = literals.into_iter().collect();
            let text: Vec<u8> = literals.iter().flatten().copied().chain(text).collect();
            prop_assert_eq!(all(&literals, &text), looked_for(&literals, &text));
        }
    }
}
