"""Constants that measuring can change.  They are defaults of this release, and no promise.

Each says its unit and what it bounds, and, unless it is marked *chosen*, what was measured; each part says
how to measure again.  The store reads them where it uses them, so a program may set them before it opens
a store, and ``uringblob bench DIRECTORY --workload W --tune NAME=V1,V2`` compares values of any of them.

Where no other machine is named: Linux 6.18, two virtual CPUs (AMD EPYC), CPython 3.11, ext4 with
``O_DIRECT``, a virtual disk and ext4 on a loop device over tmpfs.
"""

from __future__ import annotations

from typing import Final

KIB: Final = 1024
MIB: Final = 1024 * KIB

# ---- requests: when they are submitted, and together with what --------------------------------------
# Measure: --workload read --depth 32 and --page-size 4k, 512k; --workload batch --batch 32.

#: Reads of this size in bytes, and every second such write, are submitted at once: the checksum that
#: follows takes longer than an ``io_uring_enter``.
URING_LARGE_BYTES = 64 * KIB
#: Writes of this size in bytes are submitted at once instead of waiting for the tick's ``io_uring_enter``.
URING_HUGE_BYTES = MIB
#: Of smaller requests this many wait for the tick's end, and the next one submits them ...
URING_QUEUED_MAX = 3
#: ... while the kernel has fewer operations than this.
URING_IN_KERNEL_ENOUGH = 16
#: Bytes of results per reaping.  A reader checksums its frame in the same loop iteration, 30 to 50 µs
#: for 512 KiB; this limit keeps an iteration below half a millisecond.  32 frames at once stalled the
#: loop for 1.5 ms (p99; --workload stall).
COMPLETED_BYTES_AT_ONCE = 2 * MIB
#: Seconds of one reaping, checksums and resumed tasks included; the rest comes in the next iteration, behind
#: whatever else the loop has to do.
COMPLETED_S_AT_ONCE = 0.0005

#: Bytes of checked frames that C takes out of the completion queue at a time, for each thread that checks:
#: behind each such piece the readers are resumed, and the next reads submitted.  One frame of 512 KiB, or 16
#: of 4 KiB.
CHECKED_BYTES_AT_ONCE = 64 * KIB
#: Threads that help with the checksums of two and more large frames, at most; never more than processors less
#: one.  0: none.  For the whole process.
CHECKSUM_HELPERS_MAX = 3

# ---- the pread engine -------------------------------------------------------------------------------
# Measure: --contender store-pread,threads --workload read and write.

#: Threads; each blocks in one call at a time.  Enough to keep a solid-state drive busy.
PREAD_THREADS_MAX = 8
#: Bytes of one coalesced write of adjacent frames; a larger one would keep one
#: thread busy while others are idle.
COALESCED_BYTES_MAX = 2 * MIB
#: Writes in it; far below the 1,024 pieces of a ``pwritev``.
COALESCED_WRITES_MAX = 64
#: Seconds until the next attempt where there is no memory for a wake-up (not measured: rare).
RESULTS_PAUSE_S = 0.001
#: Seconds of pause after the first EAGAIN in a row; n times as many after the n-th (not measured: rare).
AGAIN_PAUSE_S = 0.0001

# ---- memory -----------------------------------------------------------------------------------------
# Measure: --sweep buffers, --sweep depth-reads; resident size in `stats()` and the benchmark's record.

#: Frames of the pool, unless ``open(buffers=...)`` says otherwise (chosen: twice the benchmark's depth) ...
BUFFERS_DEFAULT = 64
#: ... and their bytes (chosen; where fewer may be locked, fewer are registered).
BUFFERS_DEFAULT_BYTES_MAX = 32 * MIB
#: Frames of other memory that one store moves at a time through aligned frames of its own ...
BOUNCE_FRAMES_MAX = 64
#: ... and their bytes (chosen: sixteen frames of 512 KiB).
BOUNCE_BYTES_MAX = 8 * MIB
#: Bytes of one request for log blocks, and so the size of the larger scratch buffers.
SCRATCH_BYTES = 256 * KIB
#: Scratch buffers kept of each of the two sizes: at most 2.3 MiB, with the one that stays zero.
SCRATCH_KEPT_MAX = 8
#: Bytes that an opener reads ahead in the log (chosen; --measure 14 times openings).
LOG_READ_AHEAD_BYTES = 256 * KIB

# ---- work per loop iteration ------------------------------------------------------------------------
# Measure: --measure 11 (stalls) and --workload stall; tests/store/test_in_turns.py counts.

#: Bytes that one iteration checksums or copies for all calls of a store; the request that exceeds the
#: limit (a frame, a commit below 1 MiB) is still granted.
BYTES_PER_ITERATION = 2 * MIB
#: Bytes of a batch's frames that one call to C checksums, shared with the helpers: they need several at once.
CHECKSUMMED_BYTES_AT_ONCE = MIB
#: What a copied byte counts: 0.1 ms a MiB in memory that is in use, 0.5 in fresh memory.
COPY_COST = 2
#: Bytes of the largest step of one frame's checksum or copy; larger frames are taken in pieces.
STEP_BYTES = 512 * KIB
#: Bytes that a guid counts in each pass over a list of them: 2,048 names in an iteration ...
NAME_COST_BYTES = KIB
#: ... and a change: 256 in an iteration.
CHANGE_COST_BYTES = 8 * KIB
#: Bytes that a small frame counts at least where a job of its own moves it: 20 to 40 µs.
JOB_COST_BYTES = 32 * KIB
#: Bytes that encoding a log block of 119 records counts.
LOG_BLOCK_COST_BYTES = 256 * KIB
#: Guids and buffers of a call that are checked in one step.
CHECKED_AT_ONCE = 256
#: Guids of a batch that are sorted in one step: half a millisecond.
GUIDS_SORTED_AT_ONCE = 1024
#: Names that are listed in one step.
LISTED_AT_ONCE = 2048
#: Reads of a batch that are requested in one step: a millisecond.
READS_AT_ONCE = 256
#: Frames that ``verify()`` reads at a time (chosen).
VERIFIED_AT_ONCE = 8

# ---- commits ----------------------------------------------------------------------------------------
# Measure: --measure 3-5, --workload commits --depth 64, --workload batch.

#: Bytes of a batch below which it is checksummed before it is written: waiting for a tick costs more.
WRITE_OVERLAP_BYTES_MIN = 64 * KIB
#: Bytes of a commit below which it is checksummed first, so that its frames and its log block share a
#: submission.
COMMIT_OVERLAP_BYTES_MIN = MIB
#: Waiters acknowledged per loop iteration, limited by count and by the bytes of their frames.
ACKNOWLEDGED_AT_ONCE = 64
ACKNOWLEDGED_BYTES_AT_ONCE = 2 * MIB
#: Members of one group at most: counting them and checking their frames takes a millisecond.
GROUP_MEMBERS_MAX = 2048
#: Changes of a group that are applied in one step.
APPLIED_AT_ONCE = 256

#: A synchronous commit with no other call beside it blocks the store's thread in the system calls: 2.4 instead
#: of 3.0 times what they take.  After one that took so many seconds ...
BLOCKED_S_MAX = 0.005
#: ... for so many seconds none does, so that other calls are not behind a slow device (chosen).
UNBLOCKED_S = 1.0

# ---- the file ---------------------------------------------------------------------------------------
# Measure: --measure 16 and 17 (space), --measure 14 (many blobs).

#: The file grows by a sixteenth of its blobs, within these bytes.
GROWTH_BYTES_MIN = 64 * KIB
GROWTH_BYTES_MAX = 64 * MIB
#: Bytes of frames that one step of a vacuum moves ...
VACUUM_BYTES_AT_ONCE = 4 * MIB
#: ... and how many frames, with one flush (chosen) ...
VACUUM_FRAMES_AT_ONCE = 64
#: ... and how many it looks up in one walk through the index (chosen: 8 MiB of memory).
VACUUM_FRAMES_FOUND = 65536
#: Unused bytes at the end at which the file is cut while a vacuum goes on (chosen).
VACUUM_CUT_BYTES = 16 * MIB
#: Free slots that a vacuum punches are at least so many bytes side by side (chosen: an extent each).
PUNCHED_BYTES_MIN = 64 * KIB
#: So much more than a sixteenth may be unused, with frames up to the second figure: with 64 callers that commit
#: single frames of 4 KiB, and as many blobs, nine of ten waited for an empty group that freed their slots.
SPARE_BYTES = MIB
SPARE_PAGE_SIZE_MAX = 64 * KIB
#: Log blocks behind the snapshot at which compaction begins, if that is more than twice the snapshot.
COMPACTION_BLOCKS_MIN = 1024
#: Blocks of a snapshot that are written together (chosen); commits go on between.
SNAPSHOT_BLOCKS_AT_ONCE = 8
#: Seconds between two attempts to lock the file, of ``lock_timeout`` (not measured: short for a person,
#: long for a processor).
LOCK_POLL_S = 0.002
#: Seconds between two looks of ``follow()`` for something new, 2 µs each beside a writer: at first, and doubled
#: up to this while there is nothing (not measured: as short as a flush; an idle follower costs nothing).
FOLLOW_POLL_S_MIN = 0.001
FOLLOW_POLL_S_MAX = 0.1
#: Seconds between two checks by a closing store for reads in their callers' threads (not measured).
READERS_POLL_S = 0.001

#: The names that may be set, for ``--tune``.
NAMES = sorted(name for name in dict(globals()) if name.isupper() and name not in ("KIB", "MIB"))

__all__ = ["NAMES"]  # and each of them: docs/users/reference/tuning.md
