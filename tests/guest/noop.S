/* exit_group(0), statically linked, no library, no start-up code: a program start and end as every C program makes them,
   and nothing else; exit_group is what the rules for process ends watch. What remains when it is spawned in a loop is the
   cost of fork and exec themselves, and of whoever watches them. */
	.globl	_start
_start:
#if defined(__aarch64__)
	mov	x8, #94		/* __NR_exit_group, asm-generic/unistd.h */
	mov	x0, #0
	svc	#0
#else
	movl	$231, %eax	/* __NR_exit_group, asm/unistd_64.h */
	xorl	%edi, %edi
	syscall
#endif
	.section .note.GNU-stack,"",@progbits
