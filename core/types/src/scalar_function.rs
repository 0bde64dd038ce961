/// A compiled function of one row's numbers, times and bools. It always ends, and gives the same for the same arguments, on any thread.
pub trait ScalarFunction: std::fmt::Debug + Send + Sync {
    /// The function's value; `None` where it has none. An argument is the bits of its value: an int, a float, or a bool as 0 or 1, and so
    /// is the result. `valid` says which arguments have a value; the word of one that has not, which only a parameter that takes null
    /// sees, is zero.
    fn call(&self, words: &[u64], valid: &[bool]) -> Option<u64>;
}
