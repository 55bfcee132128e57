/* How the small library misbehaves: bits of hwlib_mode, which a test sets by dlsym, or a line "mode=NUMBER" in a file
 * of the activate folder. */
#ifndef TESTS_INTEROP_HWPLUGIN_LIBRARY_H
#define TESTS_INTEROP_HWPLUGIN_LIBRARY_H

enum hwlib_mode {
	HWLIB_SILENT = 0x1,        /* says success, gives nothing */
	HWLIB_GARBAGE = 0x2,       /* says success, gives noise of the right length */
	HWLIB_ONE_KEY = 0x4,       /* has one place for all keys: the last one loaded */
	HWLIB_INT_HANDLE = 0x8,    /* handles are an int at the very end of a page */
	HWLIB_HOST_EXPONENT = 0x10, /* the exponent in the machine's order */
	HWLIB_NO_EXPONENT = 0x20,
	HWLIB_ZERO_EXPONENT = 0x40, /* four bytes, all zero */
	HWLIB_LITTLE_MODULUS = 0x80,
	HWLIB_SHORT_ONLY = 0x100,  /* refuses more than 1024 bytes */
	HWLIB_SHA256_ONLY = 0x200, /* other mechanisms say success, and give nothing */
	HWLIB_FEW_SLOTS = 0x400,   /* leaves all slots alone but load_key and rsa_sign */
	HWLIB_CRASH = 0x800,       /* at a signature */
	HWLIB_OVERRUN = 0x1000,    /* writes more than the capacity that it was told */
	HWLIB_FORGETS = 0x2000,    /* each load is good for one signature */
	HWLIB_BARE_ONLY = 0x4000,  /* refuses all but the bare operation */
	HWLIB_NO_PSS = 0x8000,     /* refuses PSS and the bare operation */
	HWLIB_NOT_THERE = 0x10000, /* init fails */
	HWLIB_OTHER_KEY = 0x20000, /* tells another public key than it signs with */
	HWLIB_NEEDS_INIT = 0x40000, /* after a signature nothing works until uninit and init */
	HWLIB_NO_LOAD = 0x80000,   /* load_key fails, and leaves pointers to nothing behind */
	HWLIB_NO_FINAL = 0x100000, /* rsa_sign_final fails */
	HWLIB_NO_ACTIVATE = 0x200000,
};

#endif
