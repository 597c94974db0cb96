"""The packages whose pictures and names make the corpus: versions and checksums.

A package is never changed under its version, so the checksum of an archive is that of
the pictures. To move a package to a new version, change its two lines here.
"""

from dataclasses import dataclass
from typing import Literal

Registry = Literal["npm", "deb"]


@dataclass(frozen=True, kw_only=True)
class Package:
    """One archive of a registry."""

    registry: Registry
    name: str
    version: str
    sha256: str

    @property
    def file(self) -> str:
        """The archive's file name, as the registry's client writes it."""
        if self.registry == "npm":
            return f"{self.name.lstrip('@').replace('/', '-')}-{self.version}.tgz"
        return f"{self.name}_{self.version.replace(':', '%3a')}_all.deb"

    @property
    def address(self) -> str:
        """What the registry's client is asked for."""
        joint = "@" if self.registry == "npm" else "="
        return f"{self.name}{joint}{self.version}"


# registry, name, version, SHA-256 of the archive
_PINS = """
npm @iconify-json/twemoji 1.2.5
    19046dff7d8707ce96212ec86468b36ac5f8e60409629dd13f809265c6d0ebb7
npm @iconify-json/noto 1.2.9
    3e918d88fc945c0bb3d468dbace6f88caef67f01c9f0e7bcae0915a042e8f1ad
npm @iconify-json/noto-v1 1.2.5
    2bf62c26c2c2884aa99e90aec942cdaee17a5921f05690694f4978ad4b017c37
npm @iconify-json/fluent-emoji 1.2.7
    8044210dbf11e016d4de85f15d01a243423bd832457e7e2491df1b751c0e272b
npm @iconify-json/fluent-emoji-flat 1.2.6
    7d064769dee690815f823bc5bcc511d957198caf9f5edd8dd9c1aa48a6aeb175
npm @iconify-json/fluent-emoji-high-contrast 1.2.6
    0b92d48c90d2200bd499e3cdd09a127ca6a8c8ddefd34c35eb5a1e4994012ae0
npm @iconify-json/fxemoji 1.2.2
    f3e72b3c59d05e1db03b7e308d55c0d05bd7ba3f625a90da1b79313c12858eef
npm @iconify-json/emojione 1.2.3
    26a14f44284407e8bcde91799388dca2bfd91dbcd55a97f425524a1c5b73610e
npm @iconify-json/emojione-v1 1.2.3
    6641d59d48a42823fdc2b84e7427e9f302944eb98d2c7d94d6e67c139e7b37b3
npm @iconify-json/openmoji 1.2.29
    03181e2c156cab35cf4a62f1f7886bd971d59212e75ac3f189d5a4cae3930fc5
npm @iconify-json/streamline-emojis 1.2.4
    5dac87c876b322500989828c5823143e0100d78881627a2e4081a4b897cbfdbc
npm @iconify-json/flat-color-icons 1.2.3
    d8878a9b0f02d749bc8671eb7d47882eb711185cbcefbb365cbfb488773c4786
npm @iconify-json/fluent-color 1.2.21
    fa2ddaaac7a2a7b902659cea1b5b8c03017ce2ae56295138876b86a36177dfbe
npm @iconify-json/streamline-ultimate-color 1.2.2
    46133a11f3734bcef29066391d7edc141ed1d8056242ddfa1b5d36ce286420b6
npm @iconify-json/streamline-freehand-color 1.2.2
    00d74cbddaf1bcf35c8614ac0544d10af69c7cee8801475473fe424ee0c0c642
npm @iconify-json/icon-park 1.2.4
    c1a25212a31602aca93c3fa6f6b3288e89b9d7811afc132dfd78506e9d586b6f
npm @iconify-json/game-icons 1.2.4
    f5758efb34d91c4f50b941f355f16ee73938625e5996fabc25171288404460a4
npm @iconify-json/meteocons 1.2.4
    1c0b49c6375c0e35c3ed65db6e41e9811a0cbd2368c13ee27f870f60c6185ff0
npm openmoji 17.0.0
    55ee7d13485dec86e9f38c1f3a645a13382d33ff97c0cd845ee824b0aef45e68
npm @lobehub/fluent-emoji-3d 1.1.0
    c1bb7eee7de090205a232518a9ab4adb3df458bfbe8a1f78232991194c8b2e58
npm emojibase-data 17.0.0
    d01d0e2ca4e22cb402679532155342c71e2e871f25c32223c013b8b166ebdf5a
npm emojilib 4.0.3
    7f9a6b43cff31d18985b7d65d11faba5bd971cbcc60020cf6d09322fbaaaf303
npm @dicebear/core 9.4.3
    6ca7dae651c74ad547e548fbe7c41f49aaa377cf4617259277518389bf6b1a3d
npm @dicebear/personas 9.4.3
    6f5b4765c4d54444ab0330c4a89da53636662de3b04118b827f005a31332d002
npm @dicebear/open-peeps 9.4.3
    65b664ec00dc69c068051461f2b5bd97c8335af676e36c284e906a3017c23d4f
npm @dicebear/micah 9.4.3
    b948931f01e97147ce8cdcfc4dfdad5c029bcb1ad57420dc0b22bc0aeb1d3fa7
npm @dicebear/big-smile 9.4.3
    8dbd7b96c9ceaf9dd7c280cdae4f0bb3e43ab2798b7bedbe355fbb3ce30e87bb
npm @dicebear/miniavs 9.4.3
    cebf19ca30a49e88a60824f994f5fa2d9f9f7e2cbc7eb3bcad5b5af166f78274
deb openclipart-png 1:0.18+dfsg-19
    f07f1545a2970c2cf3fa339bc2405da1a95cf2b1827bfa05bf73eb1c20291c02
deb openclipart-svg 1:0.18+dfsg-19
    989712d90d57dfa3230049f553bb43b76c30ee4d4b8c5f6e106e33f7db5cbdc5
deb tuxpaint-stamps-default 2022.06.04-1
    6db6c1bfc870a47f1499d6203b083522eacb57c5f9c87d468f2e92eb6d9d5f34
deb gcompris-qt-data 3.1-2
    e9cf06ab2105529068df73085784e835d2ff03f870d2a8091f09125d40abac9f
deb pysiogame 4.20.01-1
    6b22766dfd8ef3a046c2665fe2598ac8a1ecee3d331bda38accf53de65bc59bf
deb scratch 1.4.0.6~dfsg1-6.1
    36c582eb93110f64f06c4e685c41e933ccba2fa68db12f79b10bfe840b21fc10
deb endless-sky-data 0.9.8-1.2
    e45835e05a11e84bb1a890a0ded390246a53b8318f21a25925aa70fa54f80c13
"""


def _read(pins: str) -> dict[str, Package]:
    fields = pins.split()
    packages = {}
    for start in range(0, len(fields), 4):
        registry, name, version, sha256 = fields[start : start + 4]
        assert registry in ("npm", "deb")
        packages[name] = Package(
            registry="npm" if registry == "npm" else "deb",
            name=name,
            version=version,
            sha256=sha256,
        )
    return packages


PACKAGES: dict[str, Package] = _read(_PINS)
