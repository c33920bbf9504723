//! placeholder until the codec lands in the next commit
