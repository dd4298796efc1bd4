/* ISC licence: see COPYING. */

/* Who signs for this process, which has no key: see signer.h. */

#ifndef TLS_CHAIN_HOOKS_H
#define TLS_CHAIN_HOOKS_H

/*
  From now on, keys that libcrypto makes are signed with by hooks_use. Without a channel nothing is
  signed. Returns 0 if there is no memory.
*/
extern int hooks_set(void);

/* Has the next signature made over channel, which is closed after it, or by hooks_end. */
extern void hooks_use(int channel);
extern void hooks_end(void);

/* Why there was no signature, if one failed; or null. */
extern char const *hooks_fault(void);

#endif
