# SPDX-License-Identifier: BSD-3-Clause
"""The lock of an arena: one word, of which the owner may die at any instruction.

::

    word, 32 bits:   waiters 1 | handed 1 | epoch 22 | slot + 1 8        0 = free

It names the owner's slot and the epoch of that: a process that gets a dead owner's slot
raises the epoch, so that the old word is nobody's. Who finds the owner dead exchanges
exactly this word for his own; of two who find it one wins. He undoes what the journal
says, and goes on as the owner.

A waiter spins for a moment and then sleeps, for WAIT_NS at most: then it asks whether
the owner lives. Who has slept sets the bit of its slot in ``starving``. While a bit is
set an unlock hands the word to the next such slot behind its own, in a circle: nobody
waits longer than one verb of each other process, and the wakes. Where nobody there
takes it any more, the next who has slept does.

The word serves the threads of one process as well. They share slot and word; a lock
handed to the slot is taken by the first of them. A thread that holds the lock may enter
again.

A word with the slot LOCK_BROKEN is never free again: the journal was damaged.
"""

from libc.stdint cimport uint32_t, uint64_t

from xmem.base.bits cimport bit, find_first_set
from xmem.base.checks cimport likely, unlikely
from xmem.shared.area cimport AREA_N_SLOTS, area_t
from xmem.shared.identity cimport member_t, slot_is_alive
from xmem.shared.system cimport (
    INT_MAX,
    cas32,
    clear_bits,
    load32,
    load64,
    now_ns,
    pause,
    set_bits,
    swap32,
    this_thread,
    wait_for,
    wake,
)
from xmem.shared.undo cimport journal_commit, journal_start, journal_undo

cdef enum:
    LOCK_SLOT_MASK = 0xFF
    LOCK_EPOCH_SHIFT = 8
    LOCK_EPOCH_MASK = 0x3FFFFF
    LOCK_HANDED = 1 << 30
    LOCK_BROKEN = 0xFF
    LOCK_SPINS = 100
    LOCK_WAIT_NS = 2000000

    # What became of an attempt.
    LOCK_TAKEN = 0
    LOCK_BUSY = 1               # not within the time
    LOCK_DAMAGED = 2            # nobody may work in the arena any more
    LOCK_FORKED = 3             # this process is a child that has not joined
    LOCK_GONE = 4               # the pool has been destroyed

# Too large for the enum, which is signed.
cdef inline uint32_t lock_waiters() noexcept nogil:
    """The bit of a word that somebody may sleep for."""
    return <uint32_t>1 << 31


cdef inline uint32_t lock_word(unsigned slot, uint32_t epoch) noexcept nogil:
    """The word while the process of that epoch in a slot owns the lock."""
    return (slot + 1) | ((epoch & LOCK_EPOCH_MASK) << LOCK_EPOCH_SHIFT)


cdef inline unsigned lock_slot(uint32_t word) noexcept nogil:
    """The slot that a word names, of one that is not free."""
    return (word & LOCK_SLOT_MASK) - 1


cdef inline bint is_dead(member_t* member, uint32_t word) noexcept nogil:
    """Whether the owner that a word names is dead."""
    cdef unsigned slot = lock_slot(word)
    cdef uint32_t epoch = (word >> LOCK_EPOCH_SHIFT) & LOCK_EPOCH_MASK
    if slot >= AREA_N_SLOTS:
        return False
    if (load32(&member.area.slots[slot].epoch) & LOCK_EPOCH_MASK) != epoch:
        return True
    return not slot_is_alive(member, slot)


cdef inline uint32_t slot_wake_bit(unsigned slot) noexcept nogil:
    """For whom a futex is woken: two slots may share a bit."""
    return <uint32_t>1 << (slot & 31)


cdef inline int lock_take_over(
    member_t* member, uint32_t word
) noexcept nogil:
    """Own the lock of a dead owner, with all that he left half done undone.

    Less than 0 if another was first.
    """
    cdef area_t* area = member.area
    if not cas32(&area.word, word, member.mine | lock_waiters()):
        return -1
    clear_bits(&area.starving, bit(lock_slot(word)))
    area.n_takeovers += 1
    area.n_undone += area.journal.end != journal_start()
    if unlikely(not journal_undo(member)):
        swap32(&area.word, LOCK_BROKEN)
        wake(&area.word, INT_MAX, ~<uint32_t>0)
        return LOCK_DAMAGED
    return LOCK_TAKEN


cdef inline int lock_attempt(
    member_t* member, uint32_t waiters
) noexcept nogil:
    """Take the lock if it is free or handed to this slot; less than 0 if it is not.

    ``waiters`` is the bit to be set in the word, or 0.
    """
    cdef uint32_t word = load32(&member.area.word)
    if word == 0:
        if cas32(&member.area.word, 0, member.mine | waiters):
            return LOCK_TAKEN
    elif unlikely((word & LOCK_SLOT_MASK) == LOCK_BROKEN):
        return LOCK_DAMAGED
    elif (word & ~lock_waiters()) == (member.mine | LOCK_HANDED):
        if cas32(&member.area.word, word, word & ~<uint32_t>LOCK_HANDED):
            return LOCK_TAKEN
    return -1


cdef inline int lock_sleep(member_t* member, uint64_t until_ns) noexcept nogil:
    """Sleep once for the lock and look at its owner; less than 0 if it is not taken."""
    cdef area_t* area = member.area
    cdef uint32_t word = load32(&area.word)
    cdef uint32_t marked = word | lock_waiters()
    if word == 0 or (word & LOCK_SLOT_MASK) == LOCK_BROKEN or (
        (word & ~lock_waiters()) == (member.mine | LOCK_HANDED)
    ):
        return -1
    if word != marked and not cas32(&area.word, word, marked):
        return -1
    set_bits(&area.starving, bit(member.slot))
    wait_for(&area.word, marked, slot_wake_bit(member.slot), until_ns)
    if load32(&area.word) != marked:
        return -1
    if marked & LOCK_HANDED:
        # Who was to have it gave up waiting, or is dead: nothing has been begun.
        if cas32(&area.word, marked, member.mine | lock_waiters()):
            clear_bits(&area.starving, bit(lock_slot(marked)))
            return LOCK_TAKEN
        return -1
    return lock_take_over(member, marked) if is_dead(member, marked) else -1


cdef inline int lock_slowly(
    member_t* member, uint64_t timeout_ns
) noexcept nogil:
    """``lock_acquire`` of a lock that was not free."""
    cdef area_t* area = member.area
    cdef uint64_t began = now_ns()
    cdef uint64_t now, until
    cdef int result = -1
    cdef unsigned _i
    for _i in range(LOCK_SPINS):
        result = lock_attempt(member, 0)
        if result >= 0:
            break
        pause()
    while result < 0:
        now = now_ns()
        if now - began >= timeout_ns:
            result = LOCK_BUSY
            break
        until = now + LOCK_WAIT_NS
        if until - began > timeout_ns:
            until = began + timeout_ns
        result = lock_sleep(member, until)
        if result < 0:
            result = lock_attempt(member, lock_waiters())
    if load64(&area.starving) & bit(member.slot):
        clear_bits(&area.starving, bit(member.slot))
    if result == LOCK_TAKEN:
        now = now_ns() - began
        if now > area.longest_wait_ns:
            area.longest_wait_ns = now
    return result


cdef inline int lock_acquire(
    member_t* member, uint64_t timeout_ns
) noexcept nogil:
    """Own the lock.

    LOCK_TAKEN, or LOCK_BUSY after so long a time, or LOCK_DAMAGED.
    """
    if likely(cas32(&member.area.word, 0, member.mine)):
        return LOCK_TAKEN
    return lock_slowly(member, timeout_ns)


cdef inline unsigned next_starving(uint64_t starving, unsigned slot) noexcept nogil:
    """The first slot behind ``slot`` in a circle whose bit is set, of some."""
    cdef uint64_t behind = starving & (~<uint64_t>1 << slot)
    return find_first_set(behind if behind != 0 else starving)


cdef inline void lock_hand_over(member_t* member) noexcept nogil:
    """``lock_release`` while somebody has slept for the lock."""
    cdef area_t* area = member.area
    cdef uint64_t starving = load64(&area.starving)
    cdef unsigned slot
    if unlikely(starving == 0):
        swap32(&area.word, 0)
        wake(&area.word, 1, ~<uint32_t>0)
        return
    slot = next_starving(starving, member.slot)
    swap32(
        &area.word,
        lock_word(slot, load32(&area.slots[slot].epoch))
        | LOCK_HANDED
        | lock_waiters(),
    )
    wake(&area.word, INT_MAX, slot_wake_bit(slot))


cdef inline void lock_release(member_t* member) noexcept nogil:
    """Give the lock up."""
    cdef area_t* area = member.area
    if unlikely(load64(&area.starving) != 0):
        lock_hand_over(member)
    elif unlikely(swap32(&area.word, 0) & lock_waiters()):
        wake(&area.word, 1, ~<uint32_t>0)


cdef inline int lock_enter(member_t* member, uint64_t timeout_ns) noexcept nogil:
    """``lock_acquire``, unless this thread holds the lock already."""
    cdef uint64_t thread = this_thread()
    cdef int result
    if unlikely(member.holder == thread):
        member.depth += 1
        return LOCK_TAKEN
    result = lock_acquire(member, timeout_ns)
    if likely(result == LOCK_TAKEN):
        member.holder = thread
        member.depth = 1
    return result


cdef inline void lock_leave(member_t* member) noexcept nogil:
    """Give up what `lock_enter` gave; at last commit, and give up the lock."""
    member.depth -= 1
    if likely(member.depth == 0):
        member.holder = 0
        journal_commit(member)
        lock_release(member)
